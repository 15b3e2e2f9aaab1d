"""What the Metal emulator refuses to compile, and what it must not refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from needs import needs_emulator
from test_emulator import mx, run

from torch_mlx_spectro import emulator

pytestmark = needs_emulator

BODY = "y[thread_position_in_grid.x] = x[0];"

#: Name: (header, source, what the message says).
REJECTED = {
    "device for threadgroup": (
        "inline float f(const threadgroup float* p) { return p[0]; }\n",
        "y[0] = f(x);",
        "f",
    ),
    "threadgroup for device": (
        "inline float f(const device float* p) { return p[0]; }\n",
        "threadgroup float s[4]; y[0] = f(s);",
        "f",
    ),
    "device for thread": ("inline void f(thread float& v) { v = 1; }\n", "f(y[0]);", "f"),
    "constant for device": ("", "const device float* p = few; y[0] = p[0];", "cannot"),
    "cast between spaces": ("", "threadgroup float* p = (threadgroup float*)x;", "address space"),
    "write to const": ("", "x[0] = 1;", "not assignable"),
    "narrowing": ("", "int a[] = {x[0]}; y[0] = a[0];", "narrow"),
    "too few elements": ("", "y[0] = float4(1.0f, x[0]).x;", "as many values"),
    "unknown name": ("", "y[0] = nothing;", "nothing"),
    "recursion": (
        "inline int f(int n) { return n < 2 ? 1 : n * f(n - 1); }\n",
        "y[0] = f(3);",
        "recursion.*f -> f",
    ),
    "mutual recursion": (
        "int g(int n);\ninline int f(int n) { return n < 2 ? 1 : g(n - 1); }\n"
        "int g(int n) { return f(n); }\n",
        "y[0] = f(3);",
        "recursion",
    ),
    "recursion of templates": (
        "template <class T> T f(T n) { return n < 2 ? n : f<T>(n - 1); }\n",
        "y[0] = f<int>(3);",
        "recursion",
    ),
    "double": ("", "double d = 1; y[0] = d;", "double"),
    "long double": ("inline float f(long double d) { return d; }\n", BODY, "double"),
    "double by a macro": ("#define REAL double\n", "REAL d = 1; y[0] = d;", "double"),
    "static local": ("", "static int n = 0; y[0] = ++n;", "static"),
    "static local of a function": (
        "inline int f() { static int n; return ++n; }\n",
        "y[0] = f();",
        "static",
    ),
    "global": ("float total = 0;\n", BODY, "constant"),
    "constant outside without its space": ("constexpr int N = 4;\n", BODY, "constant"),
    "constant of a namespace": ("namespace a { const float b[] = {1, 2}; }\n", BODY, "constant"),
    "static member": ("struct S { static constexpr int N = 4; };\n", BODY, "constant"),
    "threadgroup outside": ("threadgroup float s[4];\n", BODY, "kernel function"),
    "threadgroup in a function": (
        "inline float f() { threadgroup float s[4]; s[0] = 1; return s[0]; }\n",
        "y[0] = f();",
        "kernel function",
    ),
    "threadgroup with a value": ("", "threadgroup float s = 1; y[0] = s;", "initialised"),
    "too much threadgroup memory": (
        "",
        "threadgroup float a[4096], b[4097]; a[0] = 1; b[0] = 1; y[0] = a[0] + b[0];",
        "32772 bytes.*32768",
    ),
    "throw": ("", "throw 1;", "exceptions"),
    "try": ("", "try { y[0] = 1; } catch (...) {}", "exceptions"),
    "new": ("", "thread float* p = new float; y[0] = *p;", "new"),
    "virtual": ("struct S { virtual int f() { return 1; } };\n", BODY, "virtual"),
    "typeid": ("", "y[0] = typeid(float) == typeid(int);", "type information"),
    "goto": ("", "again: if (y[0] < 1) goto again;", "goto"),
    "function pointer": (
        "inline float f(float v) { return v; }\n",
        "float (*p)(float) = f; y[0] = p(1);",
        "through a pointer",
    ),
    "variable-length array": ("", "int n = int(x[0]); float v[n]; v[0] = 1; y[0] = v[0];", "array"),
    "pointer parameter": ("inline int f(const int* p) { return *p; }\n", BODY, "const int. p"),
    "reference parameter": ("inline void f(float& v) { v = 1; }\n", BODY, "address space"),
    "array reference parameter": ("inline void f(float (&v)[4]) {}\n", BODY, "address space"),
    "pointer parameter of a method": (
        "template <class T> struct S { int f(int a, T* p) const { return a; } };\n",
        BODY,
        "T. p",
    ),
    "pointer parameter of a declaration": ("int f(int* p);\n", BODY, "address space"),
    "local pointer": ("", "const float* p = x; y[0] = p[0];", "address space"),
    "name of a type": ("inline float half(float v) { return v; }\n", BODY, "half|type"),
}  # fmt: skip


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> emulator.Machine:
    return emulator.Machine(cache_dir=tmp_path_factory.mktemp("emulator_rejects"))


@pytest.mark.parametrize("case", REJECTED)
def test_rejected(machine: emulator.Machine, case: str) -> None:
    header, source, message = REJECTED[case]
    inputs = {"x": mx.ones((8,)), "few": mx.ones((2,))}
    with pytest.raises(emulator.Rejected, match=message):
        run(machine, source, inputs, header=header)


ACCEPTED_HEADER = """
#include <metal_stdlib>
#include <metal_math>
using namespace metal;
#define SQUARE(v) ((v) * (v))
#pragma METAL fp contract(off)
constant float TABLE[] = {1.0f, 2.0f};
namespace named { static constexpr constant int N = 4; enum { M = 2 }; enum class E { A, B }; }
template <class T, int N> struct Box {
  T v[N];
  typedef T Type;
  static constexpr int size() { return N; }
  inline thread T& at(uint i) { return v[i]; }
  T operator()(uint i) const { return v[i]; }
  T operator*(T o) const { return v[0] * o; }
 private:
  int hidden = 1;
};
template <int N, bool B = (N > 3)> struct Picked { enum { VALUE = N }; };
template <int N> struct Picked<N, false> { enum { VALUE = -N }; };
struct Declared;
inline float total(const thread float (&v)[4]) { return v[0] + v[1] + v[2] + v[3]; }
inline void fill(threadgroup float2* s, uint i, float2 v = float2(0.0f)) { s[i] = v; }
template <class P> inline float load(P p, uint i) { return p[i]; }
inline float overloaded(const device float* p) { return p[0]; }
inline float overloaded(const threadgroup float2* p) { return p[0].x; }
inline float overloaded(const constant float* p) { return p[0]; }
inline float twice(float a) { return 2 * a; }
template <float (*f)(float)> inline float apply(float a) { return f(a); }
inline float unused(float local, float global, int) { return local + global; }
"""

ACCEPTED = """
    threadgroup float2 first[8], second[2 * 4];
    threadgroup Box<float, 8> box;
    threadgroup float2* pointer = second;
    thread float* none = nullptr;
    uint i = thread_position_in_grid.x;
    const device float* start = x + 1;
    float v[4] = {1, 2, 3, 4};
    thread float& last = v[3];
    fill(first, i, float2(i, 2 * i));
    fill(pointer, i);
    if (i == 0) { for (uint k = 0; k < 8; ++k) box.v[k] = 1.5; }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float4 wide = float4(first[0].xy, i, 1), copied = vec<float, 4>(wide.xyz, 1);
    switch (i) { case 0: last = 4; break; default: last = 4; }
    #pragma unroll
    for (int k = 0; k < 1; ++k) v[0] = 1;
    y[i] = first[7 - i].y + second[i].x + box.v[i] + total(v) + load(x, i) + load(TABLE, 1) +
           apply<twice>(0.5) + SQUARE(2) + start[0] + int(named::N) + Picked<4>::VALUE +
           Picked<3>::VALUE + overloaded(x) + overloaded(first) + overloaded(TABLE) +
           (none ? 1 : 0) + copied.w + float3(int3(1, 2, 3)).z;
"""


@pytest.mark.parametrize("checked", [False, True])
def test_ordinary_metal_is_accepted(tmp_path: Path, checked: bool) -> None:
    machine = emulator.Machine(cache_dir=tmp_path, checked=checked)
    (y,) = run(machine, ACCEPTED, {"x": mx.ones((16,))}, header=ACCEPTED_HEADER)
    constant = 1.5 + 10 + 1 + 2 + 1 + 4 + 1 + 4 + 4 - 3 + 1 + 0 + 1 + 4
    assert y.tolist() == [constant + 2 * (7 - i) for i in range(8)]
    assert machine.launches[-1].threadgroup_bytes == 2 * 64 + 36


def test_messages_have_the_line_of_mlx_text(machine: emulator.Machine) -> None:
    header = "#define TWO \\\n  2\n/* a\n   comment */\n"
    with pytest.raises(emulator.Rejected, match=r"metal:9:8: error: .*wrong"):
        run(machine, "threadgroup float\n  s[4];\ny[0] = wrong;", header=header)
    with pytest.raises(emulator.Rejected, match="line 9: "):
        run(machine, "threadgroup float\n  s[4];\ngoto done;", header=header)
