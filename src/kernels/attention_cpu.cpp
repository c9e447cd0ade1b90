#include "kernels/attention_cpu.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <limits>

#include "kernels/block_products.h"
#include "kernels/fused_rows.h"

namespace calotype::kernels::cpu {
namespace {

// 64 × 256 f32 scores are 64 KiB, which with the packed keys and values of a block stays in L2.
constexpr int64_t kQueryBlock = 64;
constexpr int64_t kKeyBlock = 256;

/// Keys and values of all heads in the order that the block products read: bf16 wants two rows of the inner dimension
/// interleaved, f32 plain rows. Keys are turned to [K, N], tokens padded to an even number with zeros.
struct Packed {
  Tensor keys, values;
  int64_t tokens;  // padded
};

Packed pack(const Heads& heads) {
  Tensor k_BHNK = heads.k_BHNK, v_BHNK = heads.v_BHNK;
  if (k_BHNK.size(2) % 2) {
    k_BHNK = at::constant_pad_nd(k_BHNK, {0, 0, 0, 1});
    v_BHNK = at::constant_pad_nd(v_BHNK, {0, 0, 0, 1});
  }
  const int64_t tokens = k_BHNK.size(2);
  if (k_BHNK.scalar_type() == at::kFloat) return {k_BHNK.transpose(2, 3).contiguous(), v_BHNK.contiguous(), tokens};
  const Tensor keys = k_BHNK.unflatten(3, {-1, 2}).transpose(2, 3).contiguous();    // [B, H, K/2, N, 2]
  const Tensor values = v_BHNK.unflatten(2, {-1, 2}).transpose(3, 4).contiguous();  // [B, H, N/2, K, 2]
  return {keys, values, tokens};
}

template <typename T>
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
    std::vector<T> probabilities;
    explicit Scratch(int64_t width)
        : scores(kQueryBlock * kKeyBlock),
          sums(kQueryBlock),
          maxima(kQueryBlock),
          out(static_cast<size_t>(kQueryBlock * width)),
          probabilities(kQueryBlock * kKeyBlock) {}
  };

  int64_t blocks() const { return (tokens_ + kQueryBlock - 1) / kQueryBlock; }

  void query_block(int64_t head, int64_t first, Scratch& s) const {
    const int64_t queries = std::min(kQueryBlock, tokens_ - first);
    const T* q = heads_.q_BHNK.const_data_ptr<T>() + (head * tokens_ + first) * width_;
    const T* keys = packed_.keys.const_data_ptr<T>() + head * packed_.tokens * width_;
    const T* values = packed_.values.const_data_ptr<T>() + head * packed_.tokens * width_;
    std::ranges::fill(s.sums, 0.0f);
    std::ranges::fill(s.maxima, -std::numeric_limits<float>::infinity());
    constexpr int64_t kInterleave = std::is_same_v<T, float> ? 1 : 2;
    for (int64_t key = 0; key < tokens_; key += kKeyBlock) {
      const int64_t count = std::min(kKeyBlock, tokens_ - key), padded = (count + 1) / 2 * 2;
      multiply(queries, padded, width_, q, width_, keys + key * kInterleave, packed_.tokens, s.scores.data(), kKeyBlock,
               false);
      soften(queries, count, padded, s);
      multiply(queries, width_, padded, s.probabilities.data(), kKeyBlock, values + key * width_, width_, s.out.data(),
               width_, key > 0);
    }
    store(head, first, queries, s);
  }

  /// Scores → probabilities relative to the running maximum; what was summed before is scaled to the new maximum.
  void soften(int64_t queries, int64_t count, int64_t padded, Scratch& s) const {
    const float scale = 1.0f / std::sqrt(static_cast<float>(width_));
    for (int64_t i = 0; i < queries; ++i) {
      const auto row = static_cast<size_t>(i);
      T* probabilities = s.probabilities.data() + i * kKeyBlock;
      const SoftmaxStep step = softmax_row(s.scores.data() + i * kKeyBlock, static_cast<size_t>(count), scale,
                                           s.maxima[row], reinterpret_cast<Stored*>(probabilities));
      if (count < padded) probabilities[count] = T(0.0f);
      s.sums[row] = s.sums[row] * step.rescale + step.sum;
      s.maxima[row] = step.maximum;
      if (step.rescale != 1.0f) scale_row(s.out.data() + i * width_, step.rescale, static_cast<size_t>(width_));
    }
  }

  void store(int64_t head, int64_t first, int64_t queries, const Scratch& s) const {
    const int64_t heads = heads_.q_BHNK.size(1), batch = head / heads;
    for (int64_t i = 0; i < queries; ++i) {
      T* out = result_.out_BND.mutable_data_ptr<T>() + ((batch * tokens_ + first + i) * heads + head % heads) * width_;
      scale_row_to(s.out.data() + i * width_, 1.0f / s.sums[static_cast<size_t>(i)], static_cast<size_t>(width_),
                   reinterpret_cast<Stored*>(out));
    }
    if (!result_.log_sum_exp_BHN.defined()) return;
    float* log_sum_exp = result_.log_sum_exp_BHN.mutable_data_ptr<float>() + head * tokens_ + first;
    for (int64_t i = 0; i < queries; ++i)
      log_sum_exp[i] = s.maxima[static_cast<size_t>(i)] + std::log(s.sums[static_cast<size_t>(i)]);
  }

  using Stored = std::conditional_t<std::is_same_v<T, float>, float, uint16_t>;
  const Heads& heads_;
  const Packed& packed_;
  const AttentionResult& result_;
  int64_t width_, tokens_;
};

template <typename T>
void blockwise(const Heads& heads, const AttentionResult& result) {
  const Packed packed = pack(heads);
  const HeadBlocks<T> blocks(heads, packed, result);
  at::parallel_for(0, blocks.count(), 1, [&](int64_t begin, int64_t end) { blocks.run(begin, end); });
}

Tensor empty_result(const Tensor& q_BHNK) {
  return at::empty({q_BHNK.size(0), q_BHNK.size(2), q_BHNK.size(1) * q_BHNK.size(3)}, q_BHNK.options());
}

AttentionResult attend(const Heads& heads, bool with_log_sum_exp) {
  const Tensor& q = heads.q_BHNK;
  AttentionResult result{.out_BND = empty_result(q)};
  if (with_log_sum_exp)
    result.log_sum_exp_BHN = at::empty({q.size(0), q.size(1), q.size(2)}, q.options().dtype(at::kFloat));
  if (q.scalar_type() == at::kFloat) {
    blockwise<float>(heads, result);
  } else if (has_block_products<at::BFloat16>()) {
    blockwise<at::BFloat16>(heads, result);
  } else {
    const Heads f32{q.to(at::kFloat), heads.k_BHNK.to(at::kFloat), heads.v_BHNK.to(at::kFloat)};
    const AttentionResult wide{empty_result(f32.q_BHNK), result.log_sum_exp_BHN};
    blockwise<float>(f32, wide);
    result.out_BND.copy_(wide.out_BND);
  }
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
