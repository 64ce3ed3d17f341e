// What tensor cores do, on exact numbers: a text whose numbers are certiconv_field multiplies pairs of them by this.
//
// A lane is member `lane % 4` of group `lane / 4`.  Of A it holds the pairs of rows group and group + 8, of B those of
// column group, and where there are more than one of each, the pairs four further on: a[row / 8 + 2 h], b[h].
#pragma once

template <class Pair, int N, int H>
inline void certiconv_multiply_exactly(certiconv_field (&sum)[4], const Pair (&a)[N], const Pair (&b)[H],
                                       int line = __builtin_LINE()) {
    static_assert(N == 2 * H, "a lane holds two rows of A for each column of B");
    struct Own { Pair a[N], b[H]; } own, all[32];
    for (int i = 0; i < N; ++i) own.a[i] = a[i];
    for (int h = 0; h < H; ++h) own.b[h] = b[h];
    certiconv_gather(1, 0xffffffffu, &own, sizeof own, all, line);
    const int group = certiconv_lane() >> 2, member = certiconv_lane() & 3;
    for (int i = 0; i < 4; ++i) {
        const int row = group + 8 * (i >> 1), column = 2 * member + (i & 1);
        for (int other = 0; other < 4; ++other)
            for (int h = 0; h < H; ++h)
                for (int s = 0; s < 2; ++s)
                    sum[i] += all[4 * (row & 7) + other].a[(row >> 3) + 2 * h].at[s] * all[4 * column + other].b[h].at[s];
    }
}
