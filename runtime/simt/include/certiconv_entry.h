// What follows a kernel's text in its program: the table of its kernels.
#pragma once

#include "../executor/entry.h"

namespace certiconv {

template <class T> struct Letter { static constexpr char value = __is_class(T) || __is_union(T) ? 's' : '?'; };
template <class T> struct Letter<T *> { static constexpr char value = 'p'; };
#define CERTICONV_LETTER(T, letter) template <> struct Letter<T> { static constexpr char value = letter; };
CERTICONV_LETTER(float, 'f')
CERTICONV_LETTER(double, 'f')
CERTICONV_LETTER(bool, 'B')
CERTICONV_LETTER(char, 'i')
CERTICONV_LETTER(signed char, 'i')
CERTICONV_LETTER(short, 'i')
CERTICONV_LETTER(int, 'i')
CERTICONV_LETTER(long, 'i')
CERTICONV_LETTER(long long, 'i')
CERTICONV_LETTER(unsigned char, 'u')
CERTICONV_LETTER(unsigned short, 'u')
CERTICONV_LETTER(unsigned, 'u')
CERTICONV_LETTER(unsigned long, 'u')
CERTICONV_LETTER(unsigned long long, 'u')
CERTICONV_LETTER(__half, 'h')
CERTICONV_LETTER(__nv_bfloat16, 'b')
CERTICONV_LETTER(certiconv_field, 'F')
CERTICONV_LETTER(void, 'v')

template <class T> struct Plain { typedef T type; };
template <class T> struct Plain<const T> { typedef T type; };
template <class T> struct Plain<volatile T> { typedef T type; };
template <class T> struct Plain<const volatile T> { typedef T type; };
template <class T> struct Constant { static constexpr int value = 0; };
template <class T> struct Constant<const T> { static constexpr int value = 1; };
template <class T> struct Size { static constexpr unsigned long value = sizeof(T); };
template <> struct Size<void> { static constexpr unsigned long value = 1; };

// One line for a parameter: whether it is a pointer, whether to constants, the letter and size of the type, its name.
template <class T> void describe_type(int pointer, int constant) {
    printf("%d %d %c %lu %s\n", pointer, constant, Letter<T>::value, Size<T>::value, __PRETTY_FUNCTION__);
}
template <class T> struct Describe {
    static void print() { describe_type<typename Plain<T>::type>(0, 0); }
};
template <class T> struct Describe<T *> {
    static void print() { describe_type<typename Plain<T>::type>(1, Constant<T>::value); }
};

template <auto function> struct Entry;
template <class... P, void (*function)(P...)> struct Entry<function> {
    template <unsigned... i> struct Places {};
    template <unsigned n, unsigned... i> struct Count : Count<n - 1, n - 1, i...> {};
    template <unsigned... i> struct Count<0, i...> { typedef Places<i...> type; };
    template <unsigned... i> CERTICONV_UNCHECKED static void with(const Value *v, Places<i...>) {
        function(Take<typename Plain<P>::type>::from(v[i])...);
    }
    CERTICONV_UNCHECKED static void call(const Value *v) { with(v, typename Count<sizeof...(P)>::type()); }
    static void describe() { (Describe<typename Plain<P>::type>::print(), ...); }
};

}  // namespace certiconv
#define CERTICONV_KERNEL(...) {#__VA_ARGS__, &certiconv::Entry<&__VA_ARGS__>::call, &certiconv::Entry<&__VA_ARGS__>::describe}
