// Atomics, asynchronous copies and row loads: accesses that a kernel makes by a function of the header.
//
// cp.async copies at its wait.  From its start to that wait the cells it will fill are marked, and any access to them is an
// error: nothing else shows a missing wait, since on a GPU the bytes mostly arrive in time.
#pragma once

#include <stdlib.h>

#include "warps.h"

static void require_aligned(const void *at, unsigned bytes, Access access, unsigned pc) {
    if (launch->check && (uintptr_t)at % bytes) misaligned((uintptr_t)at, bytes, "", access, pc);
}

static void require_shared(const void *at, unsigned bytes, Access access, unsigned pc) {
    const Region *r = find((uintptr_t)at);
    if (r && r->shared) return;
    if (r) locate(*r, (uintptr_t)at, bytes);
    fail(OUT_OF_BOUNDS, site(access, pc), nowhere, "the address must lie in shared memory");
}

static void finish(const AsyncCopy &c) {
    memcpy(c.to, c.from, c.source_bytes);
    memset(c.to + c.source_bytes, 0, c.bytes - c.source_bytes);
    if (!launch->check) return;
    Region *r = find((uintptr_t)c.to);
    in_region(*r, (uintptr_t)c.to, c.bytes, WRITE, c.pc, [&](Cell &cell) { cell.write = stamp(c.pc, 0); });
}

static void finish_groups_before(unsigned group) {
    unsigned kept = 0;
    for (unsigned i = 0; i < now->copy_count; ++i) {
        const AsyncCopy c = now->copies[i];
        if (c.group < group) finish(c);
        else now->copies[kept++] = c;
    }
    now->copy_count = kept;
}

extern "C" {
void certiconv_atomic_read(const void *at, void *old, unsigned bytes, int floating) {
    if (launch->check) {
        const unsigned pc = CALLER;
        require_aligned(at, bytes, ATOMIC, pc);
        on_atomic((uintptr_t)at, bytes, pc);
    }
    floating_atomics += (u64)floating;
    memcpy(old, at, bytes);
}
void certiconv_atomic_write(void *at, const void *value, unsigned bytes) { memcpy(at, value, bytes); }

void certiconv_async_copy(void *to, const void *from, unsigned bytes, unsigned source_bytes) {
    const unsigned pc = CALLER;
    if (source_bytes > bytes) source_bytes = bytes;
    if (launch->check) {
        require_shared(to, bytes, ASYNC, pc);
        require_aligned(to, bytes, ASYNC, pc);
        require_aligned(from, bytes, READ, pc);
        if (source_bytes) on_read((uintptr_t)from, source_bytes, pc);
        on_write((uintptr_t)to, bytes, pc, IS_ASYNC);
    }
    Fibre &f = *now;
    if (f.copy_count == f.copy_room) {
        f.copy_room = 2 * f.copy_room + 16;
        f.copies = (AsyncCopy *)realloc(f.copies, f.copy_room * sizeof(AsyncCopy));
    }
    f.copies[f.copy_count++] = {(char *)to, (const char *)from, bytes, source_bytes, pc, f.groups};
}
void certiconv_async_commit() { ++now->groups; }
void certiconv_async_wait(unsigned pending) {
    if (now->groups > pending) finish_groups_before(now->groups - pending);
}
void certiconv_async_wait_all() { finish_groups_before(~0u); }

void certiconv_row_load(const void *from, void *to, unsigned bytes) {
    if (launch->check) {
        const unsigned pc = CALLER;
        require_shared(from, bytes, READ, pc);
        require_aligned(from, bytes, READ, pc);
        on_read((uintptr_t)from, bytes, pc);
    }
    memcpy(to, from, bytes);
}
}
