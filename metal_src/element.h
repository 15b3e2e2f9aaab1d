// Names of element types by a flag: MLX passes flags to a kernel, not float2.
#pragma once

namespace spectro {

template <bool COMPLEX> struct Element { typedef float Type; };
template <> struct Element<true> { typedef float2 Type; };

}  // namespace spectro
