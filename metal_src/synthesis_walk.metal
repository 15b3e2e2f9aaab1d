// Inputs: spectrum, window, envelope, table, parameters, edge. Output: signal. See synthesis_walk.h.
typedef spectro::Plan<POINTS, THREADS, R0, R1, R2, R3, R4, R5, HALF> FramePlan;
threadgroup float2 exchange[spectro::exchange_elements<FramePlan>(FRAMES)];
const device long* integers = (const device long*)parameters;
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
                   FOLD>::run(
    work, (const device float*)window, (const device float*)envelope, integers,
    (device float*)signal, thread_position_in_threadgroup.x, threadgroup_position_in_grid.x,
    threadgroup_position_in_grid.y);
