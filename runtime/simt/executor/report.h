// The end of a run that went wrong: what is known is written into the launch, and the process ends.
#pragma once

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fibres.h"
#include "launch.h"

static Launch *launch;
static unsigned block;  // the block that runs, linear
static unsigned schedule;

static Site site(Access access, unsigned pc, int line = 0) {
    return {access, pc, (u64)line, block, now ? now->thread : 0};
}
static Site site_of(Access access, const Fibre &f) { return {access, f.last_pc, (u64)f.line, block, f.thread}; }

// A read of what nothing has been written to is kept until the next barrier: if another thread writes there before, it is
// the race that should be told, with both its lines.
static Result unwritten;

[[noreturn]] static void fail(Kind kind, Site here, Site there, const char *text) {
    Result &r = launch->result;
    if (unwritten.kind && kind != RACE && kind != TIMEOUT) {
        unwritten.finished = 1;
        r = unwritten;
        fflush(stdout);
        _exit(0);
    }
    r.kind = kind;
    r.here = here;
    r.there = there;
    r.schedule = schedule;
    strncpy(r.text, text, sizeof r.text - 1);
    __sync_synchronize();
    r.finished = 1;
    fflush(stdout);
    _exit(0);
}
static const Site nowhere = {};

static void tell_unwritten() {
    if (unwritten.kind) fail(UNINITIALISED, nowhere, nowhere, "");
}
