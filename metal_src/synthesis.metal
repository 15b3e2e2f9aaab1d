// Inputs: spectrum, window, table, parameters, edge. Outputs: signal, vanishing. See synthesis.h.
typedef spectro::Plan<POINTS, THREADS, R0, R1, R2, R3, R4, R5> FramePlan;
typedef typename spectro::SynthesisPacking<PACKED, COMPLEX_SIGNAL>::Type Packing;
typedef typename spectro::Element<COMPLEX_SIGNAL>::Type Sample;
typedef typename spectro::Element<COMPLEX_WINDOW>::Type Weight;
threadgroup float2 exchange[spectro::exchange_elements<FramePlan>(FRAMES)];
const device long* integers = (const device long*)parameters;
typedef spectro::Window<Weight, WINDOW> Weights;
const Weights weights((const device Weight*)window, integers + spectro::SYNTHESIS_WINDOW_STEP);
spectro::Synthesis<FramePlan, Packing, FRAMES_FASTEST, BOTH_HALVES, FRAMES, SAMPLES, Weights> work(
    weights);
work.spectrum = (const device float2*)spectrum +
                long(threadgroup_position_in_grid.y) * long(spectrum_strides[0]);
work.frame_step = long(spectrum_strides[1]);
work.bin_step = long(spectrum_strides[2]);
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
    work, integers, (device Sample*)signal, vanishing,
    long(threadgroup_position_in_grid.x) * (FRAMES * THREADS * SAMPLES),
    integers[spectro::SYNTHESIS_LENGTH], threadgroup_position_in_grid.y);
