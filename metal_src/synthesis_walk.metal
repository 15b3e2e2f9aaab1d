// Inputs: spectrum, window, table, parameters, edge. Outputs: signal, vanishing. See
// synthesis_walk.h.
typedef spectro::Plan<POINTS, THREADS, R0, R1, R2, R3, R4, R5, HALF> FramePlan;
threadgroup float2 exchange[spectro::exchange_elements<FramePlan>(FRAMES)];
const device long* integers = (const device long*)parameters;
typedef spectro::Window<float, WINDOW> Weights;
const Weights weights((const device float*)window, integers + spectro::SYNTHESIS_WINDOW_STEP);
spectro::Walk<FramePlan, FRAMES, FRAMES_FASTEST> work;
work.spectrum = (const device float2*)spectrum +
                long(threadgroup_position_in_grid.y) * long(spectrum_strides[0]);
work.frame_step = long(spectrum_strides[1]);
work.bin_step = long(spectrum_strides[2]);
work.table = (const device float2*)table;
work.split = work.table + integers[spectro::SYNTHESIS_SPLIT_TABLE];
work.exchange = exchange;
work.edge = edge;
spectro::WalkGroup<FramePlan, HOP, FRAMES, WIDTH, ENVELOPE, KEEP_WINDOW, FRAMES_FASTEST, SAMPLES,
                   Weights, FOLD>::run(
    work, weights, integers, (device float*)signal, vanishing, thread_position_in_threadgroup.x,
    threadgroup_position_in_grid.x, threadgroup_position_in_grid.y);
