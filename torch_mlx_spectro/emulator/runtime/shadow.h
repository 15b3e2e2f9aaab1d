// What a checked launch knows about every byte: who wrote it, who read it, and when.
//
// Memory is accounted for in granules of 1, 2 or 4 bytes. A group has one count of barriers for
// device memory and one for threadgroup memory, because a barrier orders only the memory that its
// flags name; each SIMD group has a count of its own. Two accesses to a granule by different
// threads, one of them a write, race unless a count that both go by lies between them. Across
// groups nothing orders anything. Part of runtime.cpp.
#pragma once

namespace emulator {

struct Side {
  uint32_t phase;  // barriers of the group at the time
  uint32_t sub;    // barriers of the thread's SIMD group
  uint16_t thread;
  uint8_t known, atomic;
};

// For one granule. Of the readers since the last write three are enough: two lanes of one SIMD
// group, and one thread of another.
struct Cell {
  // Threadgroup memory: serial number of the group that wrote. Outputs: position of a group in the
  // grid, plus one. 0: nobody.
  uint32_t writer_group, reader_group, other_reader_group;
  Side writer, reader, neighbour, stranger;
};

// For a buffer: cells of an output, and the last group that was counted for each granule.
struct Shadow {
  Cell* cells;
  uint32_t *read_by, *written_by;
  uint64_t count;
};

struct Checks {
  Shadow* buffers;
  Cell* arena;
  uint32_t group;                     // serial number of the running group, from 1
  uint32_t phase[2];                  // barriers so far: device memory, threadgroup memory
  uint32_t sub[2][MAX_THREADS / SIMD];
  uint32_t recent;                    // buffer of the last access
};
Checks checks;

constexpr uint32_t FLAG_DEVICE = 1, FLAG_THREADGROUP = 2;

inline uint64_t cells_of(const Buffer& buffer) {
  return (buffer.bytes + buffer.granule - 1) / buffer.granule;
}

inline void shadow_close();

inline bool shadow_open() {
  if (!s.launch->checked) return true;
  memset(&checks, 0, sizeof(checks));
  checks.phase[0] = checks.phase[1] = 1;
  checks.buffers = static_cast<Shadow*>(calloc(s.launch->n_buffers + 1, sizeof(Shadow)));
  checks.arena = static_cast<Cell*>(calloc(ARENA_BYTES, sizeof(Cell)));
  bool enough = checks.buffers && checks.arena;
  for (uint32_t i = 0; enough && i < s.launch->n_buffers; ++i) {
    const Buffer& buffer = s.launch->buffers[i];
    Shadow& shadow = checks.buffers[i];
    shadow.count = cells_of(buffer);
    const uint64_t written = buffer.kind == OUTPUT ? shadow.count + 1 : 1;
    shadow.cells = static_cast<Cell*>(calloc(written, sizeof(Cell)));
    shadow.read_by = static_cast<uint32_t*>(calloc(shadow.count + 1, sizeof(uint32_t)));
    shadow.written_by = static_cast<uint32_t*>(calloc(written, sizeof(uint32_t)));
    enough = shadow.cells && shadow.read_by && shadow.written_by;
  }
  if (!enough) shadow_close();
  return enough;
}

// Frees everything, and notes which bytes of outputs nobody has written.
inline void shadow_close() {
  if (!s.launch->checked) return;
  for (uint32_t i = 0; checks.buffers && i < s.launch->n_buffers; ++i) {
    Buffer& buffer = s.launch->buffers[i];
    Shadow& shadow = checks.buffers[i];
    if (buffer.kind == OUTPUT && !buffer.written && shadow.cells) {
      for (uint64_t c = 0; c < shadow.count; ++c) {
        if (shadow.cells[c].writer_group) continue;
        if (buffer.first_unwritten < 0) buffer.first_unwritten = int64_t(c * buffer.granule);
        buffer.unwritten += buffer.granule;
      }
    }
    free(shadow.cells);
    free(shadow.read_by);
    free(shadow.written_by);
  }
  free(checks.buffers);
  free(checks.arena);
  checks.buffers = nullptr;
  checks.arena = nullptr;
}

inline void shadow_group() {
  if (!s.launch->checked) return;
  checks.group += 1;
  checks.phase[0] += 1;
  checks.phase[1] += 1;
}

inline void shadow_barrier(uint32_t flags) {
  if (!s.launch->checked) return;
  if (flags & FLAG_DEVICE) checks.phase[0] += 1;
  if (flags & FLAG_THREADGROUP) checks.phase[1] += 1;
}

inline void shadow_simd_barrier(uint32_t simd, uint32_t flags) {
  if (!s.launch->checked) return;
  if (flags & FLAG_DEVICE) checks.sub[0][simd] += 1;
  if (flags & FLAG_THREADGROUP) checks.sub[1][simd] += 1;
}

struct Access {
  uint64_t address;
  uint32_t bytes;
  bool write, atomic;
  uint32_t space, index;
  uint64_t offset;  // of the access in that memory
};

[[noreturn]] inline void report_access(uint32_t failure, const Access& access) {
  Report& report = s.launch->report;
  report.is_write = access.write;
  report.space = access.space;
  report.index = access.index;
  report.offset = int64_t(access.offset);
  report.bytes = access.bytes;
  report.address = access.address;
  fail(failure);
}

[[noreturn]] inline void report_race(const Access& access, const Side& other, uint32_t group,
                                     bool other_write) {
  Report& report = s.launch->report;
  report.other_thread = other.thread;
  report.other_group = group;
  report.other_write = other_write;
  report_access(RACE, access);
}

// Whether an earlier access of this group and `now` are not ordered.
inline bool unordered(const Side& earlier, const Side& now) {
  if (!earlier.known || earlier.phase != now.phase || earlier.thread == now.thread) return false;
  if (earlier.atomic && now.atomic) return false;
  return earlier.thread / SIMD != now.thread / SIMD || earlier.sub == now.sub;
}

inline void forget_readers(Cell& cell) {
  cell.reader.known = cell.neighbour.known = cell.stranger.known = 0;
}

inline void note_reader(Cell& cell, const Side& now) {
  const Side& first = cell.reader;
  if (!first.known || first.phase != now.phase) {
    forget_readers(cell);
    cell.reader = now;
  } else if (first.thread / SIMD != now.thread / SIMD) {
    cell.stranger = now;
  } else if (first.sub != now.sub) {
    cell.neighbour.known = 0;
    cell.reader = now;
  } else if (first.thread != now.thread) {
    cell.neighbour = now;
  }
}

// Orders and notes an access within the group.
inline void check_group(Cell& cell, const Access& access, const Side& now) {
  if (unordered(cell.writer, now)) report_race(access, cell.writer, s.group_index, true);
  if (!access.write) return note_reader(cell, now);
  const Side* readers[] = {&cell.reader, &cell.neighbour, &cell.stranger};
  for (const Side* reader : readers) {
    if (unordered(*reader, now)) report_race(access, *reader, s.group_index, false);
  }
  cell.writer = now;
  forget_readers(cell);
}

inline void check_threadgroup(Cell& cell, const Access& access, const Side& now) {
  if (cell.writer_group != checks.group) {
    if (!access.write) report_access(UNINITIALISED, access);
    cell.writer_group = checks.group;
    cell.writer.known = 0;
    forget_readers(cell);
  }
  check_group(cell, access, now);
}

inline void check_output(Cell& cell, const Access& access, const Side& now, bool from_host) {
  const uint32_t mine = s.group_index + 1;
  const bool foreign_write = cell.writer_group && cell.writer_group != mine;
  if (foreign_write && !(cell.writer.atomic && access.atomic)) {
    report_race(access, cell.writer, cell.writer_group - 1, true);
  }
  if (!access.write && !cell.writer_group && !from_host) report_access(UNINITIALISED, access);
  if (access.write && !access.atomic) {
    const uint32_t groups[] = {cell.reader_group, cell.other_reader_group};
    for (uint32_t group : groups) {
      if (group && group != mine) report_race(access, cell.reader, group - 1, false);
    }
  }
  check_group(cell, access, now);
  if (access.write) {
    cell.writer_group = mine;
  } else if (cell.reader_group != mine) {
    cell.other_reader_group = cell.reader_group;
    cell.reader_group = mine;
  }
}

inline void count(Shadow& shadow, uint64_t cell, Buffer& buffer, const Access& access) {
  if ((!access.write || access.atomic) && shadow.read_by[cell] != checks.group) {
    shadow.read_by[cell] = checks.group;
    buffer.bytes_read += buffer.granule;
  }
  if (access.write && shadow.written_by[cell] != checks.group) {
    shadow.written_by[cell] = checks.group;
    buffer.bytes_written += buffer.granule;
  }
}

inline Side side_of(uint32_t memory, bool atomic) {
  const ThreadPosition& p = s.current->position;
  return {checks.phase[memory], checks.sub[memory][p.simd], uint16_t(p.index), 1, atomic};
}

inline void access_buffer(uint32_t index, Access& access) {
  Buffer& buffer = s.launch->buffers[index];
  access.space = DEVICE_BUFFER;
  access.index = index;
  access.offset = access.address - reinterpret_cast<uint64_t>(buffer.base);
  if (access.write && buffer.kind != OUTPUT) report_access(OUT_OF_BOUNDS, access);
  const Side now = side_of(0, access.atomic);
  const uint64_t last = (access.offset + access.bytes - 1) / buffer.granule;
  for (uint64_t c = access.offset / buffer.granule; c <= last; ++c) {
    Shadow& shadow = checks.buffers[index];
    count(shadow, c, buffer, access);
    if (buffer.kind == OUTPUT) check_output(shadow.cells[c], access, now, buffer.written);
  }
}

inline void access_arena(uint64_t offset, Access& access) {
  for (uint32_t i = 0; i < s.n_arrays; ++i) {
    const Array& array = s.arrays[i];
    if (!array.used || offset + GAP < array.begin || offset >= array.begin + array.bytes + GAP) {
      continue;
    }
    access.space = THREADGROUP_ARRAY;
    access.index = i;
    access.offset = offset - array.begin;
    if (offset < array.begin || offset + access.bytes > array.begin + array.bytes) continue;
    const Side now = side_of(1, access.atomic);
    for (uint64_t c = offset; c < offset + access.bytes; ++c) {
      check_threadgroup(checks.arena[c], access, now);
    }
    return;
  }
  report_access(OUT_OF_BOUNDS, access);
}

// Names the nearest buffer, within a page, and reports.
[[noreturn]] inline void report_nowhere(Access& access) {
  uint64_t best = 4096;
  for (uint32_t i = 0; i < s.launch->n_buffers; ++i) {
    const uint64_t begin = reinterpret_cast<uint64_t>(s.launch->buffers[i].base);
    const uint64_t end = begin + s.launch->buffers[i].bytes;
    const uint64_t distance = access.address < begin ? begin - access.address
                              : access.address > end ? access.address - end
                                                     : 0;
    if (distance >= best) continue;
    best = distance;
    access.space = DEVICE_BUFFER;
    access.index = i;
    access.offset = access.address - begin;
  }
  report_access(OUT_OF_BOUNDS, access);
}

inline void shadow_access(const volatile void* pointer, uint64_t bytes, bool write, bool atomic) {
  if (!s.current || bytes == 0) return;
  Access access = {reinterpret_cast<uint64_t>(pointer), uint32_t(bytes), write, atomic, 0, 0, 0};
  const uint64_t first = access.address, end = first + bytes;
  const uint64_t stack = reinterpret_cast<uint64_t>(stack_of(s.stacks, s.current->position.index));
  if (first >= stack && end <= stack + STACK_BYTES) return;
  const uint64_t arena = reinterpret_cast<uint64_t>(s.arena);
  if (first >= arena && end <= arena + ARENA_BYTES) return access_arena(first - arena, access);
  for (uint32_t i = 0; i < s.launch->n_buffers; ++i) {
    const uint32_t index = (checks.recent + i) % s.launch->n_buffers;
    const Buffer& buffer = s.launch->buffers[index];
    const uint64_t begin = reinterpret_cast<uint64_t>(buffer.base);
    if (first < begin || end > begin + buffer.bytes) continue;
    checks.recent = index;
    return access_buffer(index, access);
  }
  const uint64_t image = reinterpret_cast<uint64_t>(s.launch->image);
  if (!write && first >= image && end <= reinterpret_cast<uint64_t>(s.launch->image_end)) return;
  report_nowhere(access);
}

// As above, for a type that is aligned to its size.
inline void shadow_aligned(const volatile void* pointer, uint64_t bytes, bool write) {
  shadow_access(pointer, bytes, write, false);
  const uint64_t address = reinterpret_cast<uint64_t>(pointer);
  if (address % bytes == 0 || !s.current) return;
  Access access = {address, uint32_t(bytes), write, false, 0, 0, 0};
  const uint64_t arena = reinterpret_cast<uint64_t>(s.arena);
  for (uint32_t i = 0; i < s.n_arrays; ++i) {
    const uint64_t begin = arena + s.arrays[i].begin;
    if (!s.arrays[i].used || address < begin || address >= begin + s.arrays[i].bytes) continue;
    access.space = THREADGROUP_ARRAY;
    access.index = i;
    access.offset = address - begin;
  }
  for (uint32_t i = 0; i < s.launch->n_buffers; ++i) {
    const uint64_t begin = reinterpret_cast<uint64_t>(s.launch->buffers[i].base);
    if (address < begin || address >= begin + s.launch->buffers[i].bytes) continue;
    access.space = DEVICE_BUFFER;
    access.index = i;
    access.offset = address - begin;
  }
  report_access(MISALIGNED, access);
}

}  // namespace emulator
