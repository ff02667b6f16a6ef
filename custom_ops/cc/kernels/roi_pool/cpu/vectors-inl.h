// Vectors of feature values, as GCC and Clang vector extensions: operators apply to each lane, and the compiler emits
// instructions of the instruction set that the including file selects.
//
// Included once per instruction set, inside its namespace; no include guard and no includes. kVectorBytes is the vector
// size.

// Stores a vector. With `stream`, uses a non-temporal store, which bypasses the cache and must be aligned.
template <bool stream, typename Vector>
inline void StoreVector(const Vector& vector, void* to) {
#ifdef __x86_64__
  if constexpr (stream && sizeof(Vector) == 64) {
    _mm512_stream_si512(static_cast<__m512i*>(to), reinterpret_cast<__m512i>(vector));
  } else if constexpr (stream && sizeof(Vector) == 32) {
    _mm256_stream_si256(static_cast<__m256i*>(to), reinterpret_cast<__m256i>(vector));
  } else if constexpr (stream && sizeof(Vector) == 16) {
    _mm_stream_si128(static_cast<__m128i*>(to), reinterpret_cast<__m128i>(vector));
  } else if constexpr (stream && sizeof(Vector) == 8) {
    long long bits;
    __builtin_memcpy(&bits, &vector, sizeof(bits));
    _mm_stream_si64(static_cast<long long*>(to), bits);
  } else {
    __builtin_memcpy(to, &vector, sizeof(vector));
  }
#else
  __builtin_memcpy(to, &vector, sizeof(vector));
#endif
}

// Non-temporal stores are not ordered with other stores until this fence.
inline void FinishStreaming() {
#ifdef __x86_64__
  _mm_sfence();
#endif
}

// Returns whether any bit of a vector is set.
template <typename Vector>
inline bool AnyBit(const Vector& vector) {
#ifdef __x86_64__
  if constexpr (sizeof(Vector) == 64) {
    const auto bits = reinterpret_cast<__m512i>(vector);
    return _mm512_test_epi64_mask(bits, bits) != 0;
  } else if constexpr (sizeof(Vector) == 32) {
    const auto bits = reinterpret_cast<__m256i>(vector);
    return !_mm256_testz_si256(bits, bits);
  }
#endif
  uint64_t parts[sizeof(Vector) / sizeof(uint64_t)], any = 0;
  __builtin_memcpy(parts, &vector, sizeof(vector));
  for (uint64_t part : parts) any |= part;
  return any != 0;
}

// Each class below is one way to hold the kCount channels of a vector while their maximum is computed. Values compare
// as floats, so -0 equals 0. `Best` is the state kept while visiting cells.
template <typename Stored, typename Value_, typename Index_>
struct PlainLanes {
  typedef Value_ Value __attribute__((vector_size(kVectorBytes)));
  typedef Index_ Index __attribute__((vector_size(kVectorBytes)));
  typedef int32_t Cells __attribute__((vector_size(kVectorBytes / sizeof(Index_) * sizeof(int32_t))));
  using Best = Value;
  using IndexOf = Index_;
  static constexpr int kCount = kVectorBytes / sizeof(Value_);

  static void Load(const Stored* from, Value* value) { __builtin_memcpy(value, from, sizeof(Value)); }

  static void Compare(const Value& value, Best* best) { *best = value > *best ? value : *best; }

  template <bool stream>
  static void Store(const Best& best, Stored* to) {
    StoreVector<stream>(best, to);
  }

  template <bool stream>
  static void StoreCells(const Index& index, int32_t* to) {
    StoreVector<stream>(__builtin_convertvector(index, Cells), to);
  }
};

// Each 16-bit value is widened to a 32-bit lane, so that the lanes match those of the int32 cells.
struct WidenedLanes {
  typedef float Value __attribute__((vector_size(kVectorBytes)));
  typedef int32_t Index __attribute__((vector_size(kVectorBytes)));
  typedef uint32_t Bits __attribute__((vector_size(kVectorBytes)));
  typedef uint16_t Half __attribute__((vector_size(kVectorBytes / 2)));
  using Best = Value;
  using IndexOf = int32_t;
  static constexpr int kCount = kVectorBytes / sizeof(float);

  static void Load(const Float16Bits* from, Value* value) {
    Half bits;
    __builtin_memcpy(&bits, from, sizeof(bits));
    *value = reinterpret_cast<Value>(__builtin_convertvector(bits, Bits) << 16);
  }

  static void Compare(const Value& value, Best* best) { *best = value > *best ? value : *best; }

  template <bool stream>
  static void Store(const Best& best, Float16Bits* to) {
    StoreVector<stream>(__builtin_convertvector(reinterpret_cast<Bits>(best) >> 16, Half), to);
  }

  template <bool stream>
  static void StoreCells(const Index& index, int32_t* to) {
    StoreVector<stream>(index, to);
  }
};

// 16-bit values compared as integers, without conversion. As int16, non-negative floats sort in numeric order and above
// all negative ones, which sort in reverse order. So the maximum is the greatest integer, or the smallest if all are
// negative. -0 is the smallest integer of all.
struct SignMagnitudeLanes {
  typedef int16_t Value __attribute__((vector_size(kVectorBytes)));
  struct Best {
    Value greatest, smallest;
  };
  using Exact = WidenedLanes;
  static constexpr int kCount = kVectorBytes / sizeof(Float16Bits);

  static void Load(const Float16Bits* from, Value* value) { __builtin_memcpy(value, from, sizeof(Value)); }

  static void Compare(const Value& value, Best* best) {
    best->greatest = value > best->greatest ? value : best->greatest;
    best->smallest = value < best->smallest ? value : best->smallest;
  }

  // Lanes whose maximum is zero and that saw both 0 and -0: the result is the one that came first, so it must be
  // recomputed in order.
  static Value HasMixedZeros(const Best& best) { return (best.greatest == 0) & (best.smallest == INT16_MIN); }

  template <bool stream>
  static void Store(const Best& best, Float16Bits* to) {
    StoreVector<stream>(best.greatest < 0 ? best.smallest : best.greatest, to);
  }
};

// One channel at a time, for maps with fewer channels than a vector has lanes.
template <typename Stored>
struct SingleLane {
  using Value = std::conditional_t<std::is_same_v<Stored, double>, double, float>;
  using Index = int32_t;
  using Best = Value;
  using IndexOf = int32_t;
  static constexpr int kCount = 1;

  static void Load(const Stored* from, Value* value) {
    if constexpr (std::is_same_v<Stored, Float16Bits>) {
      const uint32_t bits = uint32_t{from->bits} << 16;
      __builtin_memcpy(value, &bits, sizeof(bits));
    } else {
      *value = *from;
    }
  }

  static void Compare(Value value, Best* best) { *best = value > *best ? value : *best; }

  template <bool stream>
  static void Store(Best best, Stored* to) {
    if constexpr (std::is_same_v<Stored, Float16Bits>) {
      uint32_t bits;
      __builtin_memcpy(&bits, &best, sizeof(bits));
      to->bits = static_cast<uint16_t>(bits >> 16);
    } else {
      *to = best;
    }
  }

  template <bool stream>
  static void StoreCells(Index index, int32_t* to) {
    *to = index;
  }
};

template <typename T>
struct LanesOf;
template <>
struct LanesOf<float> {
  using ForMax = PlainLanes<float, float, int32_t>;
  using ForArgmax = ForMax;
};
template <>
struct LanesOf<double> {
  using ForMax = PlainLanes<double, double, int64_t>;
  using ForArgmax = ForMax;
};
template <>
struct LanesOf<Float16Bits> {
  using ForMax = SignMagnitudeLanes;
  using ForArgmax = WidenedLanes;
};
