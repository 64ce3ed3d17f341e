// How a launch reaches a kernel: its arguments are taken by the types of its parameters, which also describe themselves
// to Python, so that a wrong argument is refused before it is reinterpreted.
#pragma once

extern "C" int printf(const char *, ...);

namespace certiconv {

struct Value {
    const char *bytes;  // of an argument by value
    void *pointer;
};
struct Kernel {
    const char *name;
    void (*call)(const Value *);
    void (*describe)();
};

// These functions are part of the executor, though g++ compiles them with the kernel.
#define CERTICONV_UNCHECKED __attribute__((no_sanitize("thread", "alignment", "bounds")))

template <class T> struct Take {
    CERTICONV_UNCHECKED static T from(const Value &v) {
        T value;
        __builtin_memcpy(&value, v.bytes, sizeof value);
        return value;
    }
};
template <class T> struct Take<T *> {
    CERTICONV_UNCHECKED static T *from(const Value &v) { return (T *)v.pointer; }
};

}  // namespace certiconv
