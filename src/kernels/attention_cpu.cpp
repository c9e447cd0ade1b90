#include "kernels/attention_cpu.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <limits>

#include "kernels/attention_operand.h"
#include "kernels/block_products.h"
#include "kernels/fused_rows.h"

namespace calotype::kernels::cpu {
namespace {

// Scores, packed keys and packed values of a step stay in L2.
constexpr int64_t kQueryBlock = 64;
template <typename T>
constexpr int64_t kKeyBlock = std::is_same_v<T, float> ? 128 : 256;

/// Keys and values of all heads as right factors, tokens padded to an even number with zeros.
struct Packed {
  Tensor keys, values;
  int64_t keys_size, values_size;  ///< numbers of a head
};

template <typename Stored, typename T>
Packed pack(const Heads& heads) {
  const Tensor k_BHNK = heads.k_BHNK.contiguous(), v_BHNK = heads.v_BHNK.contiguous();
  const int64_t count = k_BHNK.size(0) * k_BHNK.size(1), tokens = k_BHNK.size(2), width = k_BHNK.size(3);
  const int64_t padded = even(tokens), size = tokens * width;
  Packed out{.keys_size = turned_size(padded, width, kKeyBlock<T>), .values_size = padded * width};
  const auto options = k_BHNK.options().dtype(c10::CppTypeToScalarType<T>::value);
  out.keys = at::empty({count * out.keys_size}, options);
  out.values = at::empty({count * out.values_size}, options);
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    std::vector<T> rows(static_cast<size_t>(padded * width));  // the padding stays zero
    for (int64_t head = begin; head < end; ++head) {
      copy_rows(k_BHNK.const_data_ptr<Stored>() + head * size, 1, size, size, rows.data());
      to_turned_right(rows.data(), padded, width, kKeyBlock<T>, out.keys.mutable_data_ptr<T>() + head * out.keys_size);
      copy_rows(v_BHNK.const_data_ptr<Stored>() + head * size, 1, size, size, rows.data());
      to_right(rows.data(), padded, width, out.values.mutable_data_ptr<T>() + head * out.values_size);
    }
  });
  return out;
}

template <typename Stored, typename T>
class HeadBlocks {
 public:
  HeadBlocks(const Heads& heads, const Packed& packed, const AttentionResult& result)
      : heads_(heads), packed_(packed), result_(result), width_(heads.q_BHNK.size(3)), tokens_(heads.q_BHNK.size(2)) {}

  int64_t count() const { return heads_.q_BHNK.size(0) * heads_.q_BHNK.size(1) * blocks(); }

  void run(int64_t begin, int64_t end) const {
    Scratch scratch(width_);
    for (int64_t i = begin; i < end; ++i) query_block(i / blocks(), i % blocks() * kQueryBlock, scratch);
    end_products();
  }

 private:
  struct Scratch {
    std::vector<float> scores, sums, maxima, out;
    std::vector<T> probabilities, queries;
    explicit Scratch(int64_t width)
        : scores(kQueryBlock * kKeyBlock<T>),
          sums(kQueryBlock),
          maxima(kQueryBlock),
          out(static_cast<size_t>(kQueryBlock * width)),
          probabilities(scores.size()),
          queries(out.size()) {}
  };

  int64_t blocks() const { return (tokens_ + kQueryBlock - 1) / kQueryBlock; }

  void query_block(int64_t head, int64_t first, Scratch& s) const {
    const int64_t queries = std::min(kQueryBlock, tokens_ - first);
    const Stored* stored = heads_.q_BHNK.const_data_ptr<Stored>() + (head * tokens_ + first) * width_;
    copy_rows(stored, 1, queries * width_, queries * width_, s.queries.data());
    const T* keys = packed_.keys.const_data_ptr<T>() + head * packed_.keys_size;
    const T* values = packed_.values.const_data_ptr<T>() + head * packed_.values_size;
    std::ranges::fill(s.sums, 0.0f);
    std::ranges::fill(s.maxima, -std::numeric_limits<float>::infinity());
    constexpr int64_t kBlock = kKeyBlock<T>;
    for (int64_t key = 0; key < tokens_; key += kBlock) {
      const int64_t count = std::min(kBlock, tokens_ - key), padded = even(count);
      multiply(queries, padded, width_, s.queries.data(), width_, keys + key * width_, kBlock, s.scores.data(), kBlock,
               false);
      soften(queries, count, padded, s);
      multiply(queries, width_, padded, s.probabilities.data(), kBlock, values + key * width_, width_, s.out.data(),
               width_, key > 0);
    }
    store(head, first, queries, s);
  }

  /// Scores → probabilities relative to the running maximum; what was summed before is scaled to the new maximum.
  void soften(int64_t queries, int64_t count, int64_t padded, Scratch& s) const {
    const float scale = 1.0f / std::sqrt(static_cast<float>(width_));
    for (int64_t i = 0; i < queries; ++i) {
      const auto row = static_cast<size_t>(i);
      T* probabilities = s.probabilities.data() + i * kKeyBlock<T>;
      const SoftmaxStep step = softmax_row(s.scores.data() + i * kKeyBlock<T>, static_cast<size_t>(count), scale,
                                           s.maxima[row], bits(probabilities));
      if (count < padded) probabilities[count] = T(0.0f);
      s.sums[row] = s.sums[row] * step.rescale + step.sum;
      s.maxima[row] = step.maximum;
      if (step.rescale != 1.0f) scale_row(s.out.data() + i * width_, step.rescale, static_cast<size_t>(width_));
    }
  }

  void store(int64_t head, int64_t first, int64_t queries, const Scratch& s) const {
    const int64_t heads = heads_.q_BHNK.size(1), batch = head / heads;
    for (int64_t i = 0; i < queries; ++i) {
      Stored* out =
          result_.out_BND.mutable_data_ptr<Stored>() + ((batch * tokens_ + first + i) * heads + head % heads) * width_;
      scale_row_to(s.out.data() + i * width_, 1.0f / s.sums[static_cast<size_t>(i)], static_cast<size_t>(width_),
                   bits(out));
    }
    if (!result_.log_sum_exp_BHN.defined()) return;
    float* log_sum_exp = result_.log_sum_exp_BHN.mutable_data_ptr<float>() + head * tokens_ + first;
    for (int64_t i = 0; i < queries; ++i)
      log_sum_exp[i] = s.maxima[static_cast<size_t>(i)] + std::log(s.sums[static_cast<size_t>(i)]);
  }

  const Heads& heads_;
  const Packed& packed_;
  const AttentionResult& result_;
  int64_t width_, tokens_;
};

template <typename Stored, typename T>
void blockwise(const Heads& heads, const AttentionResult& result) {
  const Packed packed = pack<Stored, T>(heads);
  const HeadBlocks<Stored, T> blocks(heads, packed, result);
  at::parallel_for(0, blocks.count(), 1, [&](int64_t begin, int64_t end) { blocks.run(begin, end); });
}

AttentionResult attend(const Heads& heads, bool with_log_sum_exp) {
  const Tensor& q = heads.q_BHNK;
  AttentionResult result{.out_BND = at::empty({q.size(0), q.size(2), q.size(1) * q.size(3)}, q.options())};
  if (with_log_sum_exp)
    result.log_sum_exp_BHN = at::empty({q.size(0), q.size(1), q.size(2)}, q.options().dtype(at::kFloat));
  if (q.scalar_type() == at::kFloat)
    blockwise<float, float>(heads, result);
  else if (has_block_products<at::BFloat16>())
    blockwise<at::BFloat16, at::BFloat16>(heads, result);
  else
    blockwise<at::BFloat16, float>(heads, result);
  return result;
}

}  // namespace

bool attention_serves(const Heads& heads) {
  const Tensor& q = heads.q_BHNK;
  return q.size(3) % 2 == 0 && q.is_contiguous() && has_block_products<float>();
}

Tensor attention(const Heads& heads) { return attend(heads, false).out_BND; }

AttentionResult recorded_attention(const Heads& heads) { return attend(heads, true); }

}  // namespace calotype::kernels::cpu
