"""Pieces of Metal of which it is known whether Apple's compiler takes them, and what they mean.

Known from the Metal Shading Language Specification, version 4 (June 2025), by section; "MLX" and
"torch" are sources that run on Macs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Snippet:
    """Statements of a kernel that has ``x`` (device, 1, 2, ... 8), ``few`` (constant) and ``y``.

    Attributes:
        known: where it is known from.
        source: the statements.
        header: what comes before the kernel.
        said: what a refusal says.
        y: what the kernel writes to the first elements of ``y``.
    """

    known: str
    source: str
    header: str = ""
    said: str = ""
    y: tuple[float, ...] = ()


HOLDS = "struct Pair { float a, b; inline float sum() const { return a + b; } };\n"
TWICE = "inline float twice(float a) { return 2 * a; }\n"

REFUSED: dict[str, Snippet] = {
    # Address spaces.
    "threadgroup pointer from device": Snippet(
        "4", "threadgroup float* p = x; y[0] = p[0];", said="cannot initialize|address space"
    ),
    "device pointer from constant": Snippet(
        "4.2", "const device float* p = few; y[0] = p[0];", said="cannot initialize"
    ),
    "thread pointer from threadgroup": Snippet(
        "4.4", "threadgroup float s[4]; thread float* p = s; y[0] = p[0];", said="cannot init"
    ),
    "reference across spaces": Snippet(
        "4", "f(y[0]);", "inline void f(thread float& v) { v = 1; }\n", said="f"
    ),
    "pointer without a space": Snippet(
        "4", "const float* p = few; y[0] = p[0];", said="address space"
    ),
    "reference without a space": Snippet(
        "4", "float v = 1; float& r = v; y[0] = r;", said="address space"
    ),
    "parameter without a space": Snippet(
        "4", "y[0] = 1;", "inline float f(const float* p) { return p[0]; }\n", said="address space"
    ),
    "member without a space": Snippet(
        "4", "y[0] = 1;", "struct Node { float* next; };\n", said="address space"
    ),
    "result without a space": Snippet(
        "4", "y[0] = 1;", "inline float* f(device float* p) { return 0; }\n", said="address space"
    ),
    "alias without a space": Snippet(
        "4", "y[0] = 1;", "typedef float* Pointer;\n", said="address space"
    ),
    "cast to no space": Snippet("4", "y[0] = *(float*)x;", said="address space"),
    "reinterpreted to no space": Snippet(
        "4", "y[0] = *reinterpret_cast<const float*>(x);", said="address space"
    ),
    "reinterpreted to another space": Snippet(
        "4", "y[0] = *reinterpret_cast<const threadgroup float*>(x);", said="address space|cast"
    ),
    "method of a threadgroup object": Snippet(
        "4", "threadgroup Pair p; p.a = p.b = 1; y[0] = p.sum();", HOLDS, said="object parameter"
    ),
    "method of a device object": Snippet(
        "4", "y[0] = ((const device Pair*)x)[0].sum();", HOLDS, said="object parameter"
    ),
    "write to constant": Snippet("4.2", "TABLE[0] = 1;", "constant float TABLE[] = {1};\n",
                                 said="assign"),
    "constant without a value": Snippet("4.2", "y[0] = N;", "constant float N;\n", said="init"),
    "program scope not constant": Snippet("4.2", "y[0] = 1;", "float total = 0;\n",
                                          said="constant"),
    "program scope constexpr": Snippet("4.2", "y[0] = N;", "constexpr int N = 4;\n",
                                       said="constant"),
    "static that can change": Snippet("4.2", "static int n = 0; y[0] = ++n;", said="constant"),
    "threadgroup outside of a kernel": Snippet(
        "4.4", "y[0] = f();",
        "inline float f() { threadgroup float s[4]; s[0] = 1; return s[0]; }\n", said="kernel"
    ),
    "threadgroup with a value": Snippet("4.4", "threadgroup float s = 1; y[0] = s;",
                                        said="initialised"),
    # Features of C++ that Metal has not.
    "goto": Snippet("1.5.4", "again: if (y[0] < 1) goto again;", said="goto"),
    "throw": Snippet("1.5.4", "throw 1;", said="exceptions"),
    "try": Snippet("1.5.4", "try { y[0] = 1; } catch (...) {}", said="exceptions"),
    "new": Snippet("1.5.4", "thread float* p = new float; y[0] = *p;", said="new"),
    "delete": Snippet("1.5.4", "thread float* p = 0; delete p;", said="delete"),
    "dynamic_cast": Snippet("1.5.4", "y[0] = dynamic_cast<thread int*>(0) != 0;",
                            said="type information"),
    "typeid": Snippet("1.5.4", "y[0] = typeid(int) == typeid(int);", said="type information"),
    "virtual": Snippet("1.5.4", "y[0] = 1;", "struct S { virtual int f() { return 1; } };\n",
                       said="virtual"),
    "thread_local": Snippet("1.5.4", "y[0] = 1;", "thread_local int n;\n", said="thread_local"),
    "register": Snippet("1.5.4", "register int n = 1; y[0] = n;", said="register"),
    "noexcept": Snippet("1.5.4", "y[0] = noexcept(1);", said="noexcept"),
    "lambda before Metal 3.2": Snippet("1.5.4", "auto f = [](float a) { return a; }; y[0] = f(1);",
                                       said="lambda"),
    "lambda as an argument": Snippet(
        "1.5.4", "y[0] = call([&](float a) { return a + y[0]; });",
        "template <class F> inline float call(F f) { return f(1); }\n", said="lambda"
    ),
    "a function called main": Snippet("1.5.4", "y[0] = main();",
                                      "inline int main() { return 1; }\n", said="main"),
    "variable-length array": Snippet(
        "1.5", "int n = int(x[0]); float v[n]; v[0] = 1; y[0] = v[0];", said="array"
    ),
    "if constexpr": Snippet("1.5", "if constexpr (sizeof(int) == 4) y[0] = 1;", said="C\\+\\+17"),
    "structured binding": Snippet("1.5", "Pair p = {1, 2}; auto [a, b] = p; y[0] = a + b;", HOLDS,
                                  said="C\\+\\+17|lambda"),
    "fold expression": Snippet(
        "1.5", "y[0] = total(1, 2);",
        "template <class... T> inline float total(T... t) { return (t + ...); }\n",
        said="C\\+\\+17"
    ),
    "nested namespace": Snippet("1.5", "y[0] = 1;", "namespace a::b { enum { N = 1 }; }\n",
                                said="C\\+\\+17"),
    "if with a declaration": Snippet("1.5", "if (float v = x[0]; v > 0) y[0] = v;",
                                     said="C\\+\\+17"),
    "inline variable": Snippet("1.5", "y[0] = N;", "inline constexpr constant int N = 1;\n",
                               said="C\\+\\+17"),
    "static_assert without a message": Snippet("1.5", "static_assert(sizeof(int) == 4); y[0] = 1;",
                                               said="C\\+\\+17"),
    "deduced arguments of a class": Snippet(
        "1.5", "Box b(1.0f); y[0] = b.v;",
        "template <class T> struct Box { T v; Box(T a) : v(a) {} };\n", said="Box"
    ),
    # Types.
    "double": Snippet("2.1", "double d = 1; y[0] = d;", said="double"),
    "long double": Snippet("2.1", "long double d = 1; y[0] = d;", said="double"),
    "long long": Snippet("2.1", "long long n = 1; y[0] = n;", said="long long"),
    "unsigned long long": Snippet("2.1", "unsigned long long n = 1; y[0] = n;", said="long long"),
    "vector to another vector": Snippet("2.22", "int2 i = int2(1); float2 f = i; y[0] = f.x;",
                                        said="cannot init|convert"),
    "vectors of two types": Snippet("2.22",
                                    "int2 a = int2(1); uint2 b = uint2(1); y[0] = (a + b).x;",
                                    said="invalid operands|convert"),
    "vector to a number": Snippet("2.22", "float2 f = float2(1); float v = f; y[0] = v;",
                                  said="cannot init|convert"),
    "too few values for a vector": Snippet("2.2.2", "y[0] = float4(1.0f, x[0]).x;",
                                           said="as many values"),
    "as_type of another size": Snippet("2.21", "y[0] = as_type<float2>(1.0f).x;", said="size"),
    "numbered components": Snippet("2.2.1", "y[0] = float4(1.0f).s0;", said="component 's0'"),
    "hi and lo": Snippet("2.2.1", "y[0] = float4(1.0f).hi.x;", said="component 'hi'"),
    "a component beyond": Snippet("2.2.1", "y[0] = float2(1.0f).z;", said="component|vector"),
    "components of two alphabets": Snippet("2.2.1", "y[0] = float4(1.0f).xg.x;",
                                           said="component"),
    "a component twice on the left": Snippet("2.2.1", "float4 v; v.xx = float2(1.0f); y[0] = v.x;",
                                             said="assign"),
    "the address of components": Snippet("2.2.1",
                                         "float4 v; thread float2* p = &v.xy; y[0] = p->x;",
                                         said="address of"),
    "narrowing in braces": Snippet("1.5", "int a[] = {x[0]}; y[0] = a[0];", said="narrow"),
    # Operators.
    "choice by a vector": Snippet(
        "3.1", "float2 a = float2(x[0], x[1]); y[0] = (a < 1.5f ? a : -a).x;", said="select"
    ),
    "if of a vector": Snippet("3.1", "float2 a = float2(x[0]); if (a < 2.0f) y[0] = 1;",
                              said="bool"),
    "comparison kept as integers": Snippet(
        "3.1", "float2 a = float2(x[0]); int2 m = a < 2.0f; y[0] = m.x;", said="int2"
    ),
    "any of integers": Snippet("6.4", "y[0] = any(int2(x[0]));", said="vectors of bool"),
    # OpenCL that is not Metal.
    "an address space of OpenCL": Snippet("4", "const __global float* p = x; y[0] = p[0];",
                                          said="__global"),
    "a cast list": Snippet("2.2.2", "y[0] = ((float2)(1, 2)).x;", said="comma"),
    "a conversion of OpenCL": Snippet("2.21", "y[0] = convert_float2(int2(1)).x;",
                                      said="convert_float2"),
    "a position of OpenCL": Snippet("5.2.3", "y[0] = get_global_id(0);", said="get_global_id"),
    "a barrier of OpenCL": Snippet("6.9.1", "barrier(1); y[0] = 1;", said="barrier"),
    # Text.
    "not ASCII": Snippet("MLX, torch: the source is made an ASCII string", "y[0] = 1; // \u03c0",
                         said="ASCII"),
    "a word of Metal's own": Snippet("5.1", "float vertex = 1; y[0] = vertex;", said="vertex"),
    "assembly": Snippet("1.5", 'asm("nop"); y[0] = 1;', said="assembly"),
}  # fmt: skip

TAKEN: dict[str, Snippet] = {
    "overloads by address space": Snippet(
        "1.5.1",
        "threadgroup float s[1]; s[0] = 3; y[0] = f(x), y[1] = f(s), y[2] = f(few);",
        "inline int f(const device float* p) { return 1; }\n"
        "inline int f(const threadgroup float* p) { return 2; }\n"
        "inline int f(const constant float* p) { return 3; }\n",
        y=(1, 2, 3),
    ),
    "templates of C++14": Snippet(
        "1.5.2", "y[0] = N<int> + sum(1, 2, 3);",
        "template <class T> constexpr constant int N = sizeof(T);\n"
        "inline float sum() { return 0; }\n"
        "template <class T, class... U> inline float sum(T t, U... u) { return t + sum(u...); }\n",
        y=(10,),
    ),
    "a function as a template argument": Snippet(
        "MLX: fft/radix.h", "y[0] = apply<twice>(3.0f);",
        TWICE + "template <float (*f)(float)> inline float apply(float a) { return f(a); }\n",
        y=(6,),
    ),
    "a named function type as a template argument": Snippet(
        "MLX: fft.h", "float v = 3; apply<2, triple>(&v); y[0] = v;",
        "typedef void (*Step)(thread float*);\n"
        "inline void triple(thread float* a) { *a *= 3; }\n"
        "template <int N, Step step> inline void apply(thread float* a) {\n"
        "  for (int i = 0; i < N; ++i) step(a);\n}\n",
        y=(27,),
    ),
    "a constant table": Snippet("4.2", "y[0] = TABLE[1];", "constant float TABLE[] = {1, 2};\n",
                                y=(2,)),
    "static constexpr constant": Snippet("4.2", "y[0] = S::N;",
                                         "struct S { static constexpr constant int N = 4; };\n",
                                         y=(4,)),
    "deduced pointers": Snippet(
        "4", "y[0] = load(x, 1) + load(few, 0);",
        "template <class P> inline float load(P p, uint i) { return p[i]; }\n", y=(3,)
    ),
    "auto of a pointer": Snippet("4", "auto p = x + 2; y[0] = *p;", y=(3,)),
    "a copy of a struct": Snippet(
        "4", "Pair p = ((const device Pair*)x)[1]; ((device Pair*)y)[0] = p;", HOLDS, y=(3, 4)
    ),
    "a threadgroup pointer": Snippet(
        "4.4", "threadgroup float s[4]; threadgroup float* p = s + 1; p[0] = 5; y[0] = s[1];",
        y=(5,)
    ),
    "packed members": Snippet(
        "2.2.3",
        "Loose s = ((const device Loose*)x)[1]; float2 v = s.b; y[0] = v.y, y[1] = s.b.x;"
        "y[2] = s.b[1]; y[3] = sizeof(Loose);",
        "struct Loose { float a; packed_float2 b; };\n", y=(6, 5, 6, 12),
    ),
    "packed vectors stored": Snippet(
        "2.2.3", "((device packed_float2*)(y + 1))[0] = float2(x[0], x[1]); y[0] = 0;", y=(0, 1, 2)
    ),
    "a packed vector of three": Snippet(
        "2.2.3", "packed_float3 p = ((const device packed_float3*)x)[1]; float3 v = p;"
        "y[0] = v.x + v.z, y[1] = sizeof(packed_float3);", y=(10, 12)
    ),
    "permuted components": Snippet("2.2.1", "float4 v = float4(1, 2, 3, 4); v.xw = v.wx;"
                                   "y[0] = v.x, y[1] = v.w, y[2] = v.zyx.x, y[3] = v.bgra.x;",
                                   y=(4, 1, 3, 3)),
    "constructors of vectors": Snippet(
        "2.2.2", "float4 v = float4(float2(x[0], x[1]), 3, int(4)); y[0] = v.x + v.w;"
        "y[1] = float3(1, v.xy).z; y[2] = float2(7).y;", y=(5, 2, 7)
    ),
    "a number becomes a vector": Snippet("2.22", "float2 v = 2.0f; v += 1; y[0] = v.y;", y=(3,)),
    "half literals": Snippet("2.1", "half h = 0.5h; y[0] = h * 3.0h;", y=(1.5,)),
    "64-bit integers": Snippet("2.1", "long n = long(few[0]) << 40; y[0] = float(n >> 40);",
                               y=(1,)),
    "alignas": Snippet("2.5", "y[0] = alignof(Wide);", "struct alignas(16) Wide { float a; };\n",
                       y=(16,)),
    "unroll": Snippet("MLX: steel/utils.h",
                      "float a = 0;\n_Pragma(\"clang loop unroll(full)\")\n"
                      "for (int i = 0; i < 4; ++i) a += x[i]; y[0] = a;", y=(10,)),
    "members called hi and lo": Snippet("1.5", "Split s = {1, 2}; y[0] = s.hi + s.lo;",
                                        "struct Split { float hi, lo; };\n", y=(3,)),
    "names that OpenCL keeps": Snippet("1.5", "int local = 1, global = 2, pipe = 3;"
                                       "y[0] = local + global + pipe;", y=(6,)),
    "a pragma of Metal": Snippet("1.6.3", "y[0] = 1;", "#pragma METAL fp math_mode(safe)\n",
                                 y=(1,)),
    "the version": Snippet("1.6.2", "y[0] = __METAL_VERSION__ >= 310 && __METAL_VERSION__ < 400;",
                           y=(1,)),
}  # fmt: skip

MEANING: dict[str, Snippet] = {
    "true is 1 in a vector": Snippet(
        "3.1; -1 in OpenCL", "float2 a = float2(x[0], x[1]), m = float2(a < 1.5f);"
        "y[0] = m.x, y[1] = m.y; y[2] = int2(a == a).y;", y=(1, 0, 1)
    ),
    "comparisons are vectors of bool": Snippet(
        "3.1; int2 in OpenCL", "float2 a = float2(x[0], x[1]); bool2 m = a < 1.5f;"
        "y[0] = sizeof(a < 1.5f); y[1] = m.x; y[2] = float((!m).y) + float((m && (a > 0.0f)).x);",
        y=(2, 1, 2)
    ),
    "comparisons of halves": Snippet(
        "3.1; short2 in OpenCL", "half2 h = half2(x[0], x[1]); bool2 m = h != 1.0h;"
        "y[0] = m.x, y[1] = m.y;", y=(0, 1)
    ),
    "in a template, of numbers and vectors": Snippet(
        "3.1", "y[0] = less(1.0f, 2.0f); y[1] = float2(less(float2(1.0f), float2(2.0f))).x;",
        "template <class T> inline auto less(T a, T b) { return a < b; }\n", y=(1, 1)
    ),
    "any and all": Snippet(
        "6.4; the highest bit counts in OpenCL", "float2 a = float2(x[0], x[1]);"
        "y[0] = any(a < 1.5f), y[1] = all(a < 1.5f), y[2] = any(bool2(0, 3));", y=(1, 0, 1)
    ),
    "select takes the last where it is true": Snippet(
        "6.4", "y[0] = select(1.0f, 2.0f, true);"
        "float2 v = select(float2(1.0f), float2(2.0f), bool2(false, true));"
        "y[1] = v.x, y[2] = v.y;",
        y=(2, 1, 2)
    ),
    "bool of a number": Snippet("2.1", "y[0] = bool2(3, 0.0f).x + 1; y[1] = bool(0.5f);", y=(2, 1)),
    "a product and a sum are rounded once": Snippet(
        "1.6.3; OpenCL's default differs", "float a = 1.0f + few[0] / 4096.0f;"
        "y[0] = (a * a - 1.0f) * 16777216.0f;", y=(8193,)
    ),
    "not across statements": Snippet(
        "1.6.3", "float a = 1.0f + few[0] / 4096.0f; float p = a * a;"
        "y[0] = (p - 1.0f) * 16777216.0f;", y=(8192,)
    ),
    "contraction off": Snippet(
        "1.6.3", "y[0] = f(1.0f + few[0] / 4096.0f);",
        "#pragma METAL fp contract(off)\n"
        "inline float f(float a) { return (a * a - 1.0f) * 16777216.0f; }\n", y=(8192,)
    ),
    "denormal numbers are zero": Snippet("8.1", "y[0] = (few[0] * 1e-38f) * 0.125f * 1e38f;",
                                         y=(0,)),
    "literals are float": Snippet(
        "2.1; double in C++", "y[0] = sizeof(0.1); y[1] = 0.1 == 0.1f; y[2] = sizeof(x[0] * 2.5);",
        y=(4, 1, 4)
    ),
    "shifts count modulo the width": Snippet(
        "3.1; undefined in C++", "int n = int(few[0]) + 32; y[0] = (1 << n);"
        "y[1] = (int2(4) >> int2(n, 34)).y; y[2] = (-8 >> n);", y=(2, 1, -4)
    ),
    "division truncates": Snippet("3.1", "int n = -int(few[1]) - 5; y[0] = n / 2; y[1] = -n / 2;"
                                  "y[2] = (int2(n) / int2(2, -2)).y;", y=(-3, 3, 3)),
    "conversions truncate": Snippet("2.21", "y[0] = int(-x[0] - 0.75f);"
                                    "y[1] = uint2(x[2] + 0.9f).x;"
                                    "y[2] = static_cast<int>(2.9f);", y=(-1, 3, 2)),
    "conversions round to even": Snippet(
        "2.21", "y[0] = float(16777216 + int(few[0])) - 16777216.0f;"
        "y[1] = float(16777218 + int(few[0])) - 16777216.0f;", y=(0, 4)
    ),
    "as_type keeps bits": Snippet(
        "2.21", "y[0] = as_type<float>(0x40400000 + int(few[0]) - 1);"
        "y[1] = as_type<ushort2>(0x00020003).x; y[2] = as_type<int2>(float2(0.0f)).y;",
        y=(3, 3, 0)
    ),
    "sizes of vectors": Snippet(
        "2.2", "y[0] = sizeof(float3), y[1] = alignof(float2), y[2] = sizeof(bool3);"
        "y[3] = sizeof(packed_half3), y[4] = alignof(packed_float4), y[5] = sizeof(long);",
        y=(16, 8, 4, 6, 4, 8)
    ),
    "unsigned wraps": Snippet("3.1", "uint n = uint(few[0]) - 2u; y[0] = n >> 31;", y=(1,)),
    "min of NaN": Snippet("6.5", "float n = as_type<float>(0x7fc00000 + int(few[0]) - 1);"
                          "y[0] = fmin(n, 2.0f), y[1] = max(n, 3.0f);"
                          "y[2] = n < 1.0f, y[3] = n != n;",
                          y=(2, 3, 0, 1)),
}  # fmt: skip
