// Inputs: signal, window, parameters. Output: frames. See framing.h.
typedef typename spectro::Element<COMPLEX_SIGNAL>::Type Sample;
typedef typename spectro::Element<COMPLEX_WINDOW>::Type Weight;
typedef typename spectro::Element<COMPLEX_SIGNAL || COMPLEX_WINDOW>::Type Value;
const device long* integers = (const device long*)parameters;
const spectro::Window<Weight, WINDOW> weights((const device Weight*)window,
                                                    integers + spectro::FRAMING_WINDOW_STEP);
spectro::cut_frame<ENVELOPE>((const device Sample*)signal, long(signal_strides[0]),
                             long(signal_strides[1]), weights, integers, (device Value*)frames,
                             thread_position_in_grid.x, thread_position_in_grid.y,
                             thread_position_in_grid.z);
