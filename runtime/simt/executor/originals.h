// The variables of a program (__device__, __constant__, __managed__, and those that are static in a function) as the text
// starts them: every order of blocks and threads begins with these values, as a launch of its own would.
//
// The linker places the data of the user's text between two marks (runtime/simt/build.py), so that nothing of the
// executor's or the C library's lies there.  A copy is made before the first order, and put back before each other one.
#pragma once

#include <stdlib.h>

#include "report.h"

extern "C" {
extern char certiconv_data_start[], certiconv_data_end[], certiconv_zeros_start[], certiconv_zeros_end[];
}

struct Original {
    char *from, *end, *copy;
    size_t bytes() const { return (size_t)(end - from); }
};
static Original originals[] = {{certiconv_data_start, certiconv_data_end, 0}, {certiconv_zeros_start, certiconv_zeros_end, 0}};

static void keep_variables() {
    for (Original &o : originals) {
        o.copy = (char *)malloc(o.bytes() + 1);
        if (!o.copy) fail(CRASH, nowhere, nowhere, "the system gives no memory for a copy of the program's variables");
        memcpy(o.copy, o.from, o.bytes());
    }
}
static void restore_variables() {
    for (const Original &o : originals) memcpy(o.from, o.copy, o.bytes());
}
