// Inputs: signal, window, parameters. Output: frames. See framing.h.
typedef typename spectro::Element<COMPLEX_SIGNAL>::Type Sample;
typedef typename spectro::Element<COMPLEX_WINDOW>::Type Weight;
typedef typename spectro::Element<COMPLEX_SIGNAL || COMPLEX_WINDOW>::Type Value;
spectro::cut_frame((const device Sample*)signal, long(signal_strides[0]), long(signal_strides[1]),
                   (const device Weight*)window, (const device long*)parameters,
                   (device Value*)frames, thread_position_in_grid.x, thread_position_in_grid.y,
                   thread_position_in_grid.z);
