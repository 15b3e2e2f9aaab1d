// Inputs: frames, window, envelope, parameters. Output: signal. See framing.h.
typedef typename spectro::Element<COMPLEX_SIGNAL>::Type Sample;
typedef typename spectro::Element<COMPLEX_WINDOW>::Type Weight;
spectro::added_frames<ENVELOPE, FOLD>(
    (const device Sample*)frames, (const device Weight*)window, (const device Weight*)envelope,
    (const device long*)parameters, (device Sample*)signal, thread_position_in_grid.x,
    thread_position_in_grid.y);
