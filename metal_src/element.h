// Names of element types by a flag: MLX passes flags to a kernel, not float2.
#pragma once

#include "analysis.h"
#include "synthesis.h"
#include "synthesis_walk.h"

namespace spectro {

template <bool COMPLEX> struct Element { typedef float Type; };
template <> struct Element<true> { typedef float2 Type; };

template <bool PACKED> struct AnalysisPacking { typedef Direct Type; };
template <> struct AnalysisPacking<true> { typedef Packed Type; };

template <bool PACKED, bool COMPLEX> struct SynthesisPacking { typedef DirectReal Type; };
template <> struct SynthesisPacking<true, false> { typedef PackedReal Type; };
template <> struct SynthesisPacking<false, true> { typedef DirectComplex Type; };

}  // namespace spectro
