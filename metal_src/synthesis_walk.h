// The synthesis map as walks: a group owns a run of output hops and goes over the frames that touch
// them, FRAMES in a round, so that each frame is transformed once per run and each sum stays in
// registers until it is complete. For packed real signals, compiled for one hop.
//
// NumPy:  as synthesis.h, for output samples BEGIN <= t < END of each row. With FOLD the samples
//         before and behind are made by groups of their own, as synthesis.h makes all; they are
//         those that padding's transpose adds to. vanishing[0] becomes VANISHES or FINE, which the
//         first group finds out before its own work: nobody has to wait for the launch's end.
// Grid:   x: runs of RUN hops, and with FOLD before them the groups for both ends; y: rows. Groups
//         of FRAMES * P::THREADS threads.
// Input:  as synthesis.h.
// Limits: see mirrored.h and run_sums.h; positions of a row have 32 bits.
//
// Neighbouring runs walk in opposite directions, so that both read the frames that they share at
// the same time.
#pragma once

#include "mirrored.h"
#include "run_sums.h"
#include "synthesis.h"

namespace spectro {

#ifndef __CUDACC__
inline device float* computed_once(device float* address) { return address; }
#endif

// Stores a round's frames in their buffers, in order, as pairs of neighbours, and adds them from
// there to the sums of a run. S: a RunSums.
template <class S> struct IntoSums {
  thread S* sums;
  uint thread_index;
  int m0;
  bool backward, is_first;
  RunOutput output;
  device float* row;

  template <class P, class LAST>
  inline void take(threadgroup float2* exchange, uint frame, uint t,
                   const thread float2 (&v)[LAST::PER_THREAD][LAST::R]) const {
    const bool at_ends = S::touches_ends(m0, output);
    if (P::HALF) {
      if (backward) {
        take_halves<true, LAST>(exchange, frame, t, v, at_ends);
      } else {
        take_halves<false, LAST>(exchange, frame, t, v, at_ends);
      }
      return;
    }
    store<BOTH_PARTS, LAST>(exchange, frame, t, v);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (S::DIVIDES && is_first) sums->invert(thread_index);
    if (backward && at_ends) {
      sums->template add<true, true>(exchange, thread_index, m0, output, row);
    } else if (backward) {
      sums->template add<true, false>(exchange, thread_index, m0, output, row);
    } else if (at_ends) {
      sums->template add<false, true>(exchange, thread_index, m0, output, row);
    } else {
      sums->template add<false, false>(exchange, thread_index, m0, output, row);
    }
  }

  template <bool BACKWARD, class LAST>
  inline void take_halves(threadgroup float2* exchange, uint frame, uint t,
                          const thread float2 (&v)[LAST::PER_THREAD][LAST::R],
                          bool at_ends) const {
    typename S::Value all[S::REACHED][S::OWNED];
    if (S::DIVIDES && is_first) sums->invert(thread_index);
    sums->template collect<BACKWARD>(all);
    store<REAL_PART, LAST>(exchange, frame, t, v);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    sums->template add_part<REAL_PART>(exchange, thread_index, all);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    store<IMAGINARY_PART, LAST>(exchange, frame, t, v);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    sums->template add_part<IMAGINARY_PART>(exchange, thread_index, all);
    if (at_ends) {
      sums->template settle_all<BACKWARD, true>(all, thread_index, m0, output, row);
    } else {
      sums->template settle_all<BACKWARD, false>(all, thread_index, m0, output, row);
    }
  }

  template <int PART, class LAST>
  static inline void store(threadgroup float2* exchange, uint frame, uint t,
                           const thread float2 (&v)[LAST::PER_THREAD][LAST::R]) {
#pragma unroll
    for (int i = 0; i < LAST::PER_THREAD; ++i) {
      if (!LAST::owns(t, i)) continue;
#pragma unroll
      for (int r = 0; r < LAST::R; ++r) {
        put<PART>(exchange, frame + LAST::output(t, i, r) * uint(LAST::BYTES), exchanged(v[i][r]));
      }
    }
  }
};

// Which thread does what, in a round. Where neighbouring frames are neighbours in memory,
// neighbouring threads load and do pass 0 for neighbouring frames.
template <class P, int FRAMES, bool FRAMES_FASTEST> struct RoundThreads {
  enum {
    ACROSS = FRAMES_FASTEST && FRAMES > 1,
    LINE = LINE_BYTES / int(P::POINT_BYTES),
    // Frames that are stored at once fall on different banks.
    SPREAD = ACROSS && Exchange<P, 0>::SWIZZLED && is_power_of_two(FRAMES),
    BLOCK = P::radix(0) < LINE ? P::radix(0) : LINE,
    APART = FRAMES >= BLOCK ? 1 : BLOCK / FRAMES,
    // For short frames, and for a (bins, frames) spectrum, a prefetch costs more than it saves.
    ASKS = !FRAMES_FASTEST && int(P::POINTS) >= 512
  };

  static inline uint twist(uint frame) {
    return SPREAD ? frame * uint(APART) % uint(LINE) * uint(P::POINT_BYTES) : 0u;
  }
  static inline uint loaded(uint thread_index) {
    return ACROSS ? thread_index % uint(FRAMES) : thread_index / uint(P::THREADS);
  }
  static inline uint loader(uint thread_index) {
    return ACROSS ? thread_index / uint(FRAMES) : thread_index % uint(P::THREADS);
  }
};

// What all threads of a walk know.
template <class P, int FRAMES, bool FRAMES_FASTEST> struct Walk {
  typedef RoundThreads<P, FRAMES, FRAMES_FASTEST> Threads;

  const device float2* spectrum;  // of this row
  long frame_step, bin_step;
  const device float2* table;
  const device float2* split;
  threadgroup float2* exchange;
  float edge;

  // Hands inverse transforms of frames m0 ... m0 + FRAMES - 1 to `finish`, zeros for those that are
  // not in low ... high - 1. Frames `following` ... are those of the next round.
  template <class Finish>
  inline void transform(int m0, int following, int low, int high, uint thread_index,
                        const thread Finish& finish) const {
    const uint t0 = Threads::loader(thread_index), f0 = Threads::loaded(thread_index);
    Mirrored<P> pairs;
    const int m = m0 + int(f0);
    if (m >= low && m < high && Mirrored<P>::owns(t0)) {
      const device float2* bins = spectrum + long(m) * frame_step;
      if (bin_step == 1) {
        Mirrored<P>::read(bins, 1, t0, pairs);
      } else {
        Mirrored<P>::read(bins, bin_step, t0, pairs);
      }
    } else {
      pairs.clear();
    }
    // Prefetched while these are transformed.
    const int ahead = following + int(f0);
    if (Threads::ASKS && ahead >= low && ahead < high && Mirrored<P>::owns(t0)) {
      Mirrored<P>::ask(spectrum + long(ahead) * frame_step, bin_step, t0);
    }
    pairs.weigh_edges(t0, edge);
    float2 a[Mirrored<P>::R], b[Mirrored<P>::R];
    if (Mirrored<P>::owns(t0)) {
      pairs.pack(split, t0);
      pairs.arrange(t0, a, b);
      Radix<Mirrored<P>::R>::transform(a);
      Radix<Mirrored<P>::R>::transform(b);
    }

    typedef Pass<P, 1> Next;
    const uint t = thread_index % uint(P::THREADS), f = thread_index / uint(P::THREADS);
    const uint frame0 = f0 * uint(P::FRAME_BYTES), frame = f * uint(P::FRAME_BYTES);
    float2 next[Next::PER_THREAD][Next::R];
    pairs.template pass_on<P::HALF ? REAL_PART : BOTH_PARTS, Threads::ACROSS, Next>(
        exchange, frame0, Threads::twist(f0), t0, frame, Threads::twist(f), t, a, b, next);
    if (P::HALF) {
      pairs.template pass_on<IMAGINARY_PART, Threads::ACROSS, Next>(
          exchange, frame0, Threads::twist(f0), t0, frame, Threads::twist(f), t, a, b, next);
    }
    Chain<P, 0>::go_on(exchange, frame, table, t, next, finish);
  }
};

// One group's run. S: a RunSums.
template <class S, class P, int FRAMES, bool FRAMES_FASTEST>
inline void synthesis_run(const thread Walk<P, FRAMES, FRAMES_FASTEST>& work, thread S& sums,
                          const device long* parameters, device float* row, uint thread_index,
                          uint run) {
  const int hop = int(parameters[SYNTHESIS_HOP]), hops = int(parameters[SYNTHESIS_RUN]);
  const int begin = int(parameters[SYNTHESIS_BEGIN]), end = int(parameters[SYNTHESIS_END]);
  RunOutput output;
  output.start = int(parameters[SYNTHESIS_START]);
  output.frames = int(parameters[SYNTHESIS_FRAMES]);
  const int first_hop = (begin + output.start) / hop + int(run) * hops;
  const int last_hop = (end - 1 + output.start) / hop;
  const int end_hop = first_hop + hops <= last_hop ? first_hop + hops : last_hop + 1;
  output.begin = first_hop * hop - output.start > begin ? first_hop * hop - output.start : begin;
  output.end = end_hop * hop - output.start < end ? end_hop * hop - output.start : end;

  // Frames that touch these hops: first_hop - (OVERLAP - 1) ... end_hop - 1.
  const int oldest = first_hop - (S::OVERLAP - 1);
  const int low = oldest > 0 ? oldest : 0;
  const int high = end_hop < output.frames ? end_hop : output.frames;
  const int rounds = divided_up(end_hop - oldest, FRAMES);
  const bool backward = run % 2 == 1;
  const int zero = int(parameters[SYNTHESIS_ZERO]);
  for (int round = 0; round < rounds; ++round) {
    // A zero that the compiler does not know of: addresses are computed anew in every round, as
    // together they would take more registers than there are.
    const uint index = thread_index + uint(round * zero);
    const int m0 = backward ? end_hop - FRAMES * (round + 1) : oldest + FRAMES * round;
    const IntoSums<S> finish = {&sums, index, m0, backward, round == 0, output, row};
    work.transform(m0, backward ? m0 - FRAMES : m0 + FRAMES, low, high, index, finish);
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
}

// Whether the envelope of the whole call vanishes at a kept sample: asked by all threads of a group.
// Squares are not negative. So where there are OVERLAP frames or more, the envelope at one offset of
// the hop rises from hop to hop, stays, and falls: checking the first and the last kept hop suffices.
// With fewer frames every kept sample is checked.
template <int N_FFT, int HOP, int GROUP, class Weights>
inline bool vanishes_anywhere(const thread Weights& window, const device long* parameters,
                              threadgroup atomic_uint* votes, uint thread_index) {
  enum { OVERLAP = divided_up(N_FFT, HOP) };
  const int frames = int(parameters[SYNTHESIS_FRAMES]), kept = int(parameters[SYNTHESIS_KEPT]);
  const uint start = uint(parameters[SYNTHESIS_START]);
  const int all = kept - kept / 2;  // from either end
  const int reach = frames >= OVERLAP && HOP < all ? HOP : all;
  bool found = false;
  for (int i = int(thread_index); i < reach; i += GROUP) {
#pragma unroll
    for (int from_end = 0; from_end < 2; ++from_end) {
      const uint position = start + uint(from_end ? kept - 1 - i : i);
      const uint q = position / uint(HOP), r = position % uint(HOP);
      float squares = 0.0f;
#pragma unroll 8
      for (int k = 0; k < OVERLAP; ++k) {
        const uint place = uint(k * HOP) + r;
        const bool is_covered = q - uint(k) < uint(frames) && place < uint(N_FFT);
        // All are read, at once: one after the other they would take a microsecond.
        const float value = window.at(place < uint(N_FFT) ? place : 0u);
        squares = plus_square(squares, is_covered ? value : 0.0f);
      }
      found = found || vanishes(squares);
    }
  }
  return is_any(found, votes, thread_index);
}

// What a group of the grid does. Weights: a Window.
template <class P, int HOP, int FRAMES, int WIDTH, bool ENVELOPE, bool KEEP_WINDOW,
          bool FRAMES_FASTEST, int SAMPLES, class Weights, bool FOLD>
struct WalkGroup {
  typedef Walk<P, FRAMES, FRAMES_FASTEST> Work;

  static inline void run(const thread Work& work, const thread Weights& window,
                         const device long* parameters, device float* signal,
                         device atomic_uint* vanishing, uint thread_index, uint group, uint row) {
    if (ENVELOPE && group == 0 && row == 0 && is_asked(vanishing)) {
      const bool found = vanishes_anywhere<2 * int(P::POINTS), HOP, FRAMES * int(P::THREADS)>(
          window, parameters, (threadgroup atomic_uint*)work.exchange, thread_index);
      if (thread_index == 0) {
        atomic_store_explicit(vanishing, uint(found ? VANISHES : FINE), memory_order_relaxed);
      }
    }
    RunSums<P, HOP, FRAMES, WIDTH, ENVELOPE, KEEP_WINDOW, Weights> sums(
        window, as_type<float>(int(parameters[SYNTHESIS_SCALE])), thread_index);
    device float* of_row = computed_once(signal + long(row) * parameters[SYNTHESIS_LENGTH]);
    synthesis_run(work, sums, parameters, of_row, thread_index, group);
  }
};

// The transpose of padding: groups for both ends first, as their work is the longest. Not for plans
// with HALF, which synthesis.h has none of.
template <class P, int HOP, int FRAMES, int WIDTH, bool ENVELOPE, bool KEEP_WINDOW,
          bool FRAMES_FASTEST, int SAMPLES, class Weights>
struct WalkGroup<P, HOP, FRAMES, WIDTH, ENVELOPE, KEEP_WINDOW, FRAMES_FASTEST, SAMPLES, Weights,
                 true> {
  typedef Walk<P, FRAMES, FRAMES_FASTEST> Work;

  static inline void run(const thread Work& work, const thread Weights& window,
                         const device long* parameters, device float* signal,
                         device atomic_uint* vanishing, uint thread_index, uint group, uint row) {
    const uint ends = 2u * uint(parameters[SYNTHESIS_END_GROUPS]);
    if (group >= ends) {
      WalkGroup<P, HOP, FRAMES, WIDTH, ENVELOPE, KEEP_WINDOW, FRAMES_FASTEST, SAMPLES, Weights,
                false>::run(work, window, parameters, signal, vanishing, thread_index,
                            group - ends, row);
      return;
    }
    Synthesis<P, PackedReal, FRAMES_FASTEST, false, FRAMES, SAMPLES, Weights> tile(window);
    tile.spectrum = work.spectrum;
    tile.frame_step = work.frame_step;
    tile.bin_step = work.bin_step;
    tile.table = work.table;
    tile.split = work.split;
    tile.exchange = work.exchange;
    tile.thread_index = thread_index;
    tile.frames = int(parameters[SYNTHESIS_FRAMES]);
    tile.hop = HOP;
    tile.n_fft = 2 * int(P::POINTS);
    tile.zero = int(parameters[SYNTHESIS_ZERO]);
    tile.edge = work.edge;
    const bool left = group < ends / 2;
    const long begin = left ? 0 : parameters[SYNTHESIS_END];
    const long end = left ? parameters[SYNTHESIS_BEGIN] : parameters[SYNTHESIS_LENGTH];
    const long tile_of_end = left ? group : group - ends / 2;
    synthesis<decltype(tile), ENVELOPE, true, SAMPLES>(
        tile, parameters, signal, vanishing,
        begin + tile_of_end * (FRAMES * P::THREADS * SAMPLES), end, row);
  }
};

}  // namespace spectro
