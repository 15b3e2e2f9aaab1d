// Inputs: spectrum, window, envelope, table, parameters, edge. Output: signal. See synthesis.h.
typedef spectro::Plan<POINTS, THREADS, R0, R1, R2, R3, R4, R5> FramePlan;
typedef typename spectro::SynthesisPacking<PACKED, COMPLEX_SIGNAL>::Type Packing;
typedef typename spectro::Element<COMPLEX_SIGNAL>::Type Sample;
typedef typename spectro::Element<COMPLEX_WINDOW>::Type Weight;
threadgroup float2 exchange[spectro::exchange_elements<FramePlan>(FRAMES)];
const device long* integers = (const device long*)parameters;
spectro::Synthesis<FramePlan, Packing, FRAMES_FASTEST, BOTH_HALVES, FRAMES, SAMPLES, Weight> work;
work.spectrum = (const device float2*)spectrum +
                long(threadgroup_position_in_grid.y) * long(spectrum_strides[0]);
work.frame_step = long(spectrum_strides[1]);
work.bin_step = long(spectrum_strides[2]);
work.window = (const device Weight*)window;
work.table = (const device float2*)table;
work.split = work.table + integers[spectro::SYNTHESIS_SPLIT_TABLE];
work.exchange = exchange;
work.thread_index = thread_position_in_threadgroup.x;
work.frames = int(integers[spectro::SYNTHESIS_FRAMES]);
work.hop = int(integers[spectro::SYNTHESIS_HOP]);
work.n_fft = int(integers[spectro::SYNTHESIS_N_FFT]);
work.zero = int(integers[spectro::SYNTHESIS_ZERO]);
work.edge = edge;
spectro::synthesis<decltype(work), ENVELOPE, FOLD, SAMPLES>(
    work, (const device Weight*)envelope, integers, (device Sample*)signal,
    long(threadgroup_position_in_grid.x) * (FRAMES * THREADS * SAMPLES),
    integers[spectro::SYNTHESIS_LENGTH], threadgroup_position_in_grid.y);
