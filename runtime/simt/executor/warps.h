// Barriers, and everything that lanes of a warp do together.
//
// A lane that comes to such an operation waits until all lanes that its mask names, and that have not ended, stand at the
// same operation with the same mask; a matrix instruction (mma.sync, ldmatrix) needs all 32.  A barrier, a vote, a shuffle
// or a matrix product is the same only by the same calls (calls.h).  Of what lanes do together only __syncwarp orders
// memory: the others say nothing about it, as CUDA's guide has it.
#pragma once

#include "calls.h"
#include "hooks.h"

enum Meeting { WARP_BARRIER = 0, VOTE = 16, MATCH = 24, SHUFFLE = 32, GATHER = 64 };

static unsigned ended, barrier_count;

static const char *meeting_name(int kind) {
    static const char *const shuffles[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"};
    static const char *const votes[] = {"__ballot_sync", "__any_sync", "__all_sync"};
    if (kind >= GATHER) return kind == GATHER ? "__reduce_sync" : kind <= GATHER + 2 ? "mma.sync" : "ldmatrix";
    return kind >= SHUFFLE ? shuffles[kind - SHUFFLE] : kind >= MATCH ? "__match_any_sync" : kind >= VOTE ? votes[kind - VOTE] : "__syncwarp";
}

static Fibre *lane_of(unsigned warp, unsigned lane) {
    const unsigned t = 32 * warp + lane;
    return t < threads ? &fibres[t] : 0;
}

static bool same(const Fibre &a, const Fibre &b) {
    return a.kind == b.kind && a.mask == b.mask && (a.kind == WARP_BARRIER || a.path == b.path);
}

[[noreturn]] static void wrong_mask(const Fibre &f, Site there, const char *what, int lane = -1) {
    char text[256];
    if (lane < 0) snprintf(text, sizeof text, "%s with mask 0x%08x: %s", meeting_name(f.kind), f.mask, what);
    else snprintf(text, sizeof text, "%s with mask 0x%08x names lane %d, %s", meeting_name(f.kind), f.mask, lane, what);
    Site here = site_of(AT_WARP_LINE, f);
    here.pc = 0;
    there.pc = 0;
    fail(SHUFFLE_MASK, here, there, text);
}

static void order_lanes(Fibre **lanes) {
    unsigned met[32] = {};
    for (int l = 0; l < 32; ++l)
        if (lanes[l])
            for (int u = 0; u < 32; ++u) met[u] = lanes[l]->seen[u] > met[u] ? lanes[l]->seen[u] : met[u];
    for (int l = 0; l < 32; ++l)
        if (lanes[l]) {
            memcpy(lanes[l]->seen, met, sizeof met);
            ++lanes[l]->seen[l];
        }
}

// Which lane a shuffle reads from (the PTX manual, shfl.sync).
static int source_lane(const Fibre &f) {
    const int lane = f.lane, width = f.width, first = lane & ~(width - 1), last = first + width - 1;
    int from = lane;
    switch (f.kind - SHUFFLE) {
        case 0: return first + (f.operand & (width - 1));
        case 1: from = lane - f.operand; return from < first ? lane : from;
        case 2: from = lane + f.operand; return from > last || from < 0 ? lane : from;
        default: from = lane ^ f.operand; return from > last || from < 0 ? lane : from;
    }
}

// CUDA leaves open what a shuffle gives that reads no lane; here it is a value that shows.  The lane is marked: it may add
// such values without a word, until its block ends, and so may a lane that reads from it.
static void give_undefined(Fibre &f) {
    for (unsigned b = 0; b < f.bytes; ++b) ((char *)f.out)[b] = ((const char *)&UNDEFINED_VALUES[schedule & 1])[b & 3];
    f.undefined_line = f.line;
    f.result = 0;
    ++undefined_shuffles;
}

static void move(Fibre **lanes) {
    char values[32][128];
    int undefined_lines[32] = {};
    unsigned ballot = 0, there = 0;
    for (int l = 0; l < 32; ++l)
        if (lanes[l]) {
            if (lanes[l]->in) memcpy(values[l], lanes[l]->in, lanes[l]->bytes);
            ballot |= (unsigned)(lanes[l]->predicate != 0) << l;
            there |= 1u << l;
            undefined_lines[l] = lanes[l]->undefined_line;
        }
    for (int l = 0; l < 32; ++l) {
        Fibre *f = lanes[l];
        if (!f) continue;
        if (f->kind >= GATHER) {
            for (int u = 0; u < 32; ++u)
                if (lanes[u]) {
                    memcpy((char *)f->out + u * f->bytes, values[u], f->bytes);
                    if (undefined_lines[u]) f->undefined_line = undefined_lines[u];
                }
            f->result = there;
        } else if (f->kind >= SHUFFLE) {
            const int from = source_lane(*f);
            f->result = 1;
            if (!lanes[from]) {
                give_undefined(*f);
                continue;
            }
            memcpy(f->out, values[from], f->bytes);
            if (undefined_lines[from]) f->undefined_line = undefined_lines[from];
        } else if (f->kind >= MATCH) {
            f->result = 0;
            for (int u = 0; u < 32; ++u)
                if (lanes[u]) f->result |= (unsigned)!memcmp(values[u], values[l], f->bytes) << u;
        } else if (f->kind >= VOTE) f->result = ballot;
    }
}

static int named(char *text, size_t room, unsigned lanes) {
    const int first = __builtin_ctz(lanes), last = 31 - __builtin_clz(lanes);
    if (first == last) return snprintf(text, room, "lane %d", first);
    if (lanes == (~0u >> (31 - last) & ~0u << first)) return snprintf(text, room, "lanes %d to %d", first, last);
    return snprintf(text, room, "%d lanes (0x%08x)", __builtin_popcount(lanes), lanes);
}

// A matrix instruction is one of the whole warp: PTX leaves open what it does where a lane has ended, or where a block has
// too few threads for it.
static void need_whole_warp(const Fibre &f, unsigned there) {
    unsigned exist = 0;
    for (unsigned l = 0; l < 32; ++l) exist |= (unsigned)(lane_of(f.warp, l) != 0) << l;
    const unsigned gone = exist & ~there;
    if (!~there) return;
    char text[160];
    int at = snprintf(text, sizeof text, "all 32 lanes have to take part");
    if (gone) {
        at += snprintf(text + at, sizeof text - at, "; ended: ");
        at += named(text + at, sizeof text - at, gone);
    }
    if (~exist) {
        at += snprintf(text + at, sizeof text - at, "; not in this block of %u threads: ", threads);
        named(text + at, sizeof text - at, ~exist);
    }
    wrong_mask(f, nowhere, text);
}

// Whether all lanes of f's mask that have not ended stand where f stands; if so, they go on.
static bool met(Fibre &f) {
    Fibre *lanes[32] = {};
    unsigned there = 0;
    for (unsigned l = 0; l < 32; ++l) {
        Fibre *other = f.mask >> l & 1 ? lane_of(f.warp, l) : 0;
        if (!other || other->state == ENDED) continue;
        if (other->state != AT_WARP || !same(f, *other)) return false;
        lanes[l] = other;
        there |= 1u << l;
    }
    if (f.kind > GATHER) need_whole_warp(f, there);
    if (f.kind == WARP_BARRIER) order_lanes(lanes);
    else move(lanes);
    for (Fibre *lane : lanes)
        if (lane) lane->state = RUNNABLE;
    return true;
}

static void meet(int kind, unsigned mask, int line, void **frame) {
    Fibre &f = *now;
    check_stored();
    f.kind = kind;
    f.mask = mask;
    arrive(f, line, frame);
    f.state = AT_WARP;
    if (!(mask >> f.lane & 1)) wrong_mask(f, nowhere, "the calling lane is not in it");
    for (unsigned l = 0; l < 32; ++l) {  // two lanes that wait for one another, but not at the same thing
        const Fibre *other = mask >> l & 1 ? lane_of(f.warp, l) : 0;
        if (other && other->state == AT_WARP && other->mask >> f.lane & 1 && !same(f, *other)) {
            char what[160];
            snprintf(what, sizeof what, "which waits at %s with mask 0x%08x", meeting_name(other->kind), other->mask);
            note_ways(f, *other);
            wrong_mask(f, site_of(AT_WARP_LINE, *other), what, (int)l);
        }
    }
    if (!met(f)) yield();
}

static void thread_ended() {
    check_stored();
    now->state = ENDED;
    ++ended;
    for (unsigned l = 0; l < 32; ++l)
        if (Fibre *f = lane_of(now->warp, l); f && f->state == AT_WARP) met(*f);
}

[[noreturn]] static void divergent(const Fibre &at, const Fibre &other) {
    Site here = site_of(AT_BARRIER_LINE, at), there = site_of(other.state == ENDED ? ENDED_THREAD : other.state == AT_WARP ? AT_WARP_LINE : AT_BARRIER_LINE, other);
    here.pc = 0;
    if (other.state == ENDED) there.line = 0, there.pc = other.last_pc;
    else there.pc = 0, note_ways(at, other);
    fail(DIVERGENT_BARRIER, here, there, other.state == ENDED ? "the other thread has ended" : "the other thread is elsewhere");
}

// Every thread waits or has ended: the barrier opens, or never will.
static void open_barrier() {
    tell_unwritten();
    const Fibre *first = 0, *odd = 0;
    for (unsigned t = 0; t < threads; ++t) {
        const Fibre &f = fibres[t];
        if (f.state == AT_BARRIER && !first) first = &f;
    }
    for (unsigned t = 0; t < threads; ++t) {  // a lane that waits in vain for others is the cause; name it first
        const Fibre &f = fibres[t];
        if (f.state != AT_WARP) continue;
        for (unsigned l = 0; l < 32; ++l) {
            const Fibre *other = f.mask >> l & 1 ? lane_of(f.warp, l) : 0;
            if (!other || other->state != AT_BARRIER) continue;
            wrong_mask(f, site_of(AT_BARRIER_LINE, *other), "which waits at __syncthreads", (int)l);
        }
        odd = &f;
    }
    if (!first) wrong_mask(*odd, nowhere, "no lane can go on");
    for (unsigned t = 0; t < threads && launch->check; ++t) {
        const Fibre &f = fibres[t];
        if (f.state != AT_BARRIER || f.path != first->path) divergent(*first, f);
    }
    barrier_count = 0;
    for (unsigned t = 0; t < threads; ++t) {
        Fibre &f = fibres[t];
        if (f.state != AT_BARRIER) continue;
        barrier_count += (unsigned)f.predicate;
        f.state = RUNNABLE;
    }
    ++interval;
}

extern "C" {
int certiconv_barrier(int predicate, int line) {
    check_stored();
    now->state = AT_BARRIER;
    now->predicate = predicate;
    arrive(*now, line, FRAME);
    if (bad_index.pc) report_index(0, 0, 0, NONE, 0);
    yield();
    return (int)barrier_count;
}
void certiconv_warp_barrier(unsigned mask, int line) {
    meet(WARP_BARRIER, mask, line, FRAME);
    asm volatile("");  // a call in the last place would be a jump, and the frame be gone
}
unsigned certiconv_vote(int kind, unsigned mask, int predicate, int line) {
    now->in = 0;
    now->predicate = predicate;
    meet(VOTE + kind, mask, line, FRAME);
    return now->result;
}
void certiconv_match(unsigned mask, const void *in, unsigned bytes, unsigned *equal, int line) {
    now->in = in;
    now->bytes = bytes;
    meet(MATCH, mask, line, FRAME);
    *equal = now->result;
}
int certiconv_shuffle(int kind, unsigned mask, const void *in, void *out, unsigned bytes, int operand, int width, int line) {
    Fibre &f = *now;
    f.in = in;
    f.out = out;
    f.bytes = bytes;
    f.operand = operand;
    f.width = width;
    f.kind = SHUFFLE + kind;
    f.mask = mask;
    f.line = line;
    if (width < 1 || width > 32 || (width & (width - 1))) wrong_mask(f, nowhere, "the width is not 1, 2, 4, 8, 16 or 32");
    meet(SHUFFLE + kind, mask, line, FRAME);
    return (int)f.result;
}
unsigned certiconv_gather(int kind, unsigned mask, const void *in, unsigned bytes, void *all, int line) {
    now->in = in;
    now->out = all;
    now->bytes = bytes;
    meet(GATHER + kind, mask, line, FRAME);
    return now->result;
}
unsigned certiconv_active() {
    unsigned mask = 0;
    for (unsigned l = 0; l < 32; ++l)
        if (const Fibre *f = lane_of(now->warp, l); f && f->state != ENDED) mask |= 1u << l;
    return mask;
}
}
