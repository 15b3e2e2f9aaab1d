// Inputs: frames, window, parameters. Outputs: signal, vanishing. See framing.h.
typedef typename spectro::Element<COMPLEX_SIGNAL>::Type Sample;
typedef typename spectro::Element<COMPLEX_WINDOW>::Type Weight;
const device long* integers = (const device long*)parameters;
const spectro::Window<Weight, WINDOW> weights((const device Weight*)window,
                                                    integers + spectro::ADDING_WINDOW_STEP);
spectro::added_frames<ENVELOPE, FOLD>((const device Sample*)frames, weights, integers,
                                      (device Sample*)signal, vanishing,
                                      thread_position_in_grid.x, thread_position_in_grid.y);
