// Inputs: signal, window, table, parameters, edge. Output: spectrum. See analysis.h.
typedef spectro::Plan<POINTS, THREADS, R0, R1, R2, R3, R4, R5> FramePlan;
typedef typename spectro::AnalysisPacking<PACKED>::Type Packing;
typedef typename spectro::Element<COMPLEX_SIGNAL>::Type Sample;
typedef typename spectro::Element<COMPLEX_WINDOW>::Type Weight;
threadgroup float2 exchange[spectro::exchange_elements<FramePlan>(FRAMES)];
const device long* integers = (const device long*)parameters;
const spectro::Window<Weight, WINDOW> weights((const device Weight*)window,
                                                    integers + spectro::ANALYSIS_WINDOW_STEP);
spectro::analysis<FramePlan, Packing, TWO_SIDED, SCALED, ENVELOPE, HOP, FRAMES,
                  FRAMES_FASTEST>(
    (const device Sample*)signal, long(signal_strides[0]), long(signal_strides[1]),
    weights, (const device float2*)table, integers, edge, (device float2*)spectrum, exchange,
    thread_position_in_threadgroup.x, threadgroup_position_in_grid.x,
    threadgroup_position_in_grid.y);
