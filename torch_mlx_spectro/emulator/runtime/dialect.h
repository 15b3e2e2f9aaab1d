// Metal's keywords in the two modes in which clang reads a kernel.
//
// C++14 has no address spaces of its own: clang's numbered ones never convert to each other or to
// none, not even where OpenCL has its generic space. `thread` is no attribute there, as in Metal,
// whose methods and variables are the thread's where nothing is said.
#pragma once
#pragma clang system_header

#ifdef __OPENCL_CPP_VERSION__

#pragma OPENCL EXTENSION cl_khr_fp16 : enable
// Functions as template arguments; calls.py refuses a call through a pointer that remains.
#pragma OPENCL EXTENSION __cl_clang_function_pointers : enable

#define device __global
#define threadgroup __local
#define thread __private
// Keywords of OpenCL that are ordinary names in Metal.
#define local mtl_name_local
#define global mtl_name_global
#define generic mtl_name_generic
#define pipe mtl_name_pipe
#define event_t mtl_name_event_t
#define sampler_t mtl_name_sampler_t

#else

#define device __attribute__((address_space(1)))
#define constant __attribute__((address_space(2)))
#define threadgroup __attribute__((address_space(3)))
#define thread

typedef _Float16 half;
constexpr half operator""h(long double x) { return half(x); }
constexpr half operator""H(long double x) { return half(x); }

#endif

#define kernel
