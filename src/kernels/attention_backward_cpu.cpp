#include "kernels/attention_backward_cpu.h"

#include <cmath>

#include "kernels/block_products.h"
#include "kernels/fused_rows.h"
#include "kernels/fused_rows_backward.h"
#include "kernels/tensor_rows.h"

namespace calotype::kernels::cpu {
namespace {

// Two blocks of 64 × 256 f32 scores and their 16-bit copies stay in L2 with the operands of a step.
constexpr int64_t kKeyBlock = 64;
constexpr int64_t kQueryBlock = 256;

// exp(score − this) is zero for every score: the padding query has no probabilities.
constexpr float kNoProbability = 1e30F;

template <typename T>
using Bits = std::conditional_t<std::is_same_v<T, float>, float, uint16_t>;

template <typename T>
auto* bits(T* p) {
  using Pointer = std::conditional_t<std::is_const_v<T>, const Bits<std::remove_const_t<T>>*, Bits<T>*>;
  return reinterpret_cast<Pointer>(p);
}

/// out[c][r] = in[r][c], in squares that fit L1.
template <typename Number>
void transpose(const Number* in, int64_t rows, int64_t columns, int64_t ld_in, Number* out, int64_t ld_out) {
  constexpr int64_t kSquare = 16;
  for (int64_t r0 = 0; r0 < rows; r0 += kSquare)
    for (int64_t c0 = 0; c0 < columns; c0 += kSquare)
      for (int64_t c = c0; c < std::min(c0 + kSquare, columns); ++c)
        for (int64_t r = r0; r < std::min(r0 + kSquare, rows); ++r) out[c * ld_out + r] = in[r * ld_in + c];
}

/// One matrix [N, K] of a head in the orders that products read, N padded to an even number with zeros.
template <typename T>
class Operand {
 public:
  Operand(int64_t tokens, int64_t width)
      : padded_((tokens + 1) / 2 * 2), width_(width), rows_(static_cast<size_t>(padded_ * width)) {}

  void read(const T* in, int64_t tokens, int64_t stride) {
    for (int64_t i = 0; i < tokens; ++i) std::copy_n(in + i * stride, width_, rows_.data() + i * width_);
    std::fill_n(rows_.data() + tokens * width_, (padded_ - tokens) * width_, T(0.0F));
  }

  /// Row-major [N, K]: a left factor.
  const T* rows() const { return rows_.data(); }

  /// [N, K] as a right factor.
  const T* right() {
    if constexpr (std::is_same_v<T, float>) {
      return rows();
    } else {
      right_.resize(rows_.size());
      for (int64_t i = 0; i < padded_; i += 2)
        interleave_row(bits(rows() + i * width_), bits(rows() + (i + 1) * width_), static_cast<size_t>(width_),
                       bits(right_.data() + i * width_));
      return right_.data();
    }
  }

  /// [K, N] as a left factor.
  const T* turned() {
    turned_.resize(rows_.size());
    transpose(bits(rows()), padded_, width_, width_, bits(turned_.data()), padded_);
    return turned_.data();
  }

  /// [K, N] as a right factor. Two neighbouring bf16 of a row are already the pair that the product wants.
  const T* turned_right() {
    if constexpr (std::is_same_v<T, float>) {
      return turned();
    } else {
      turned_.resize(rows_.size());
      transpose(reinterpret_cast<const uint32_t*>(rows()), padded_, width_ / 2, width_ / 2,
                reinterpret_cast<uint32_t*>(turned_.data()), padded_);
      return turned_.data();
    }
  }

 private:
  int64_t padded_, width_;
  std::vector<T> rows_, right_, turned_;
};

/// One thread's work: the gradients of one head after another.
template <typename T>
class HeadGradient {
 public:
  HeadGradient(const Heads& heads, const AttentionResult& result, const Tensor& grad_BND, const Heads& out)
      : heads_(heads),
        result_(result),
        grad_BND_(grad_BND),
        out_(out),
        count_(heads.q_BHNK.size(1)),
        tokens_(heads.q_BHNK.size(2)),
        width_(heads.q_BHNK.size(3)),
        padded_((tokens_ + 1) / 2 * 2),
        q_(tokens_, width_),
        k_(tokens_, width_),
        v_(tokens_, width_),
        grad_(tokens_, width_),
        log_sum_exp_(static_cast<size_t>(padded_)),
        delta_(static_cast<size_t>(padded_)),
        scores_(kKeyBlock * kQueryBlock),
        d_probabilities_(scores_.size()),
        probabilities_(scores_.size()),
        d_scores_(scores_.size()),
        d_scores_right_(scores_.size()),
        d_k_(static_cast<size_t>(kKeyBlock * width_)),
        d_v_(d_k_.size()),
        d_q_turned_(static_cast<size_t>(padded_ * width_)),
        d_q_(d_q_turned_.size()) {}

  void operator()(int64_t head) {
    read(head);
    right_ = {q_.turned_right(), q_.right(), grad_.turned_right(), grad_.right(), k_.turned()};
    for (int64_t key = 0; key < padded_; key += kKeyBlock) {
      for (int64_t query = 0; query < padded_; query += kQueryBlock) step(key, query);
      const int64_t rows = std::min(kKeyBlock, tokens_ - key), first = (head * tokens_ + key) * width_;
      write(d_k_, rows, out_.k_BHNK, first);
      write(d_v_, rows, out_.v_BHNK, first);
    }
    transpose(d_q_turned_.data(), width_, padded_, padded_, d_q_.data(), width_);
    write(d_q_, tokens_, out_.q_BHNK, head * tokens_ * width_);
  }

 private:
  void read(int64_t head) {
    const int64_t b = head / count_, h = head % count_, begin = head * tokens_ * width_;
    q_.read(heads_.q_BHNK.const_data_ptr<T>() + begin, tokens_, width_);
    k_.read(heads_.k_BHNK.const_data_ptr<T>() + begin, tokens_, width_);
    v_.read(heads_.v_BHNK.const_data_ptr<T>() + begin, tokens_, width_);
    grad_.read(grad_BND_.const_data_ptr<T>() + b * grad_BND_.stride(0) + h * width_, tokens_, grad_BND_.stride(1));
    const T* out = result_.out_BND.const_data_ptr<T>() + (b * tokens_ * count_ + h) * width_;
    for (int64_t i = 0; i < tokens_; ++i)
      delta_[static_cast<size_t>(i)] =
          dot_row(bits(grad_.rows() + i * width_), bits(out + i * count_ * width_), static_cast<size_t>(width_));
    std::copy_n(result_.log_sum_exp_BHN.const_data_ptr<float>() + head * tokens_, tokens_, log_sum_exp_.data());
    if (tokens_ == padded_) return;
    log_sum_exp_.back() = kNoProbability;
    delta_.back() = 0.0F;
  }

  // Rows are keys, columns queries: sᵀ = k·qᵀ, d_pᵀ = v·gradᵀ, d_v += pᵀ·grad, d_k += d_sᵀ·q, d_qᵀ += kᵀ·d_sᵀ. This
  // way d_sᵀ is the only matrix that products need in two orders.
  void step(int64_t key, int64_t query) {
    const int64_t keys = std::min(kKeyBlock, padded_ - key), queries = std::min(kQueryBlock, padded_ - query);
    constexpr int64_t kPair = std::is_same_v<T, float> ? 1 : 2;
    multiply(keys, queries, width_, k_.rows() + key * width_, width_, right_.q_turned + query * kPair, padded_,
             scores_.data(), kQueryBlock, false);
    multiply(keys, queries, width_, v_.rows() + key * width_, width_, right_.grad_turned + query * kPair, padded_,
             d_probabilities_.data(), kQueryBlock, false);
    differentiate_softmax(key, query, keys, queries);
    multiply(keys, width_, queries, probabilities_.data(), kQueryBlock, right_.grad + query * width_, width_,
             d_v_.data(), width_, query > 0);
    multiply(keys, width_, queries, d_scores_.data(), kQueryBlock, right_.q + query * width_, width_, d_k_.data(),
             width_, query > 0);
    const T* d_scores = std::is_same_v<T, float> ? d_scores_.data() : d_scores_right_.data();
    multiply(width_, queries, keys, right_.k_turned + key, padded_, d_scores, kQueryBlock, d_q_turned_.data() + query,
             padded_, key > 0);
  }

  void differentiate_softmax(int64_t key, int64_t query, int64_t keys, int64_t queries) {
    for (int64_t i = 0; i < keys; ++i) {
      const int64_t at = i * kQueryBlock;
      if (key + i == tokens_) {  // the padding key
        std::fill_n(probabilities_.data() + at, queries, T(0.0F));
        std::fill_n(d_scores_.data() + at, queries, T(0.0F));
      } else {
        softmax_gradient_row({.scores = scores_.data() + at,
                              .grad = d_probabilities_.data() + at,
                              .log_sum_exp = log_sum_exp_.data() + query,
                              .delta = delta_.data() + query,
                              .scale = 1.0F / std::sqrt(static_cast<float>(width_)),
                              .count = static_cast<size_t>(queries)},
                             bits(probabilities_.data() + at), bits(d_scores_.data() + at));
      }
      if constexpr (!std::is_same_v<T, float>)
        if (i % 2)
          interleave_row(bits(d_scores_.data() + at - kQueryBlock), bits(d_scores_.data() + at),
                         static_cast<size_t>(queries), bits(d_scores_right_.data() + at - kQueryBlock));
    }
  }

  void write(const std::vector<float>& from, int64_t rows, const Tensor& to, int64_t first) const {
    scale_row_to(from.data(), 1.0F, static_cast<size_t>(rows * width_), bits(to.mutable_data_ptr<T>() + first));
  }

  struct RightFactors {
    const T *q_turned, *q, *grad_turned, *grad, *k_turned;
  };
  const Heads& heads_;
  const AttentionResult& result_;
  const Tensor& grad_BND_;
  const Heads& out_;
  int64_t count_, tokens_, width_, padded_;
  Operand<T> q_, k_, v_, grad_;
  std::vector<float> log_sum_exp_, delta_, scores_, d_probabilities_;
  std::vector<T> probabilities_, d_scores_, d_scores_right_;
  std::vector<float> d_k_, d_v_, d_q_turned_, d_q_;
  RightFactors right_{};
};

template <typename T>
Heads by_heads(const Tensor& grad_BND, const Heads& heads, const AttentionResult& result) {
  const Tensor& q = heads.q_BHNK;
  const Heads out{at::empty_like(q), at::empty_like(q), at::empty_like(q)};
  at::parallel_for(0, q.size(0) * q.size(1), 1, [&](int64_t begin, int64_t end) {
    HeadGradient<T> gradient(heads, result, grad_BND, out);
    for (int64_t head = begin; head < end; ++head) gradient(head);
    end_products();
  });
  return out;
}

}  // namespace

Heads attention_backward(const Tensor& grad, const Heads& heads, const AttentionResult& result) {
  const Tensor grad_BND = grad.stride(-1) == 1 ? grad : grad.contiguous();
  if (heads.q_BHNK.scalar_type() == at::kFloat) return by_heads<float>(grad_BND, heads, result);
  if (has_block_products<at::BFloat16>()) return by_heads<at::BFloat16>(grad_BND, heads, result);
  const auto f32 = [](const Tensor& t) { return t.to(at::kFloat); };
  const Heads out = by_heads<float>(f32(grad_BND), {f32(heads.q_BHNK), f32(heads.k_BHNK), f32(heads.v_BHNK)},
                                    {f32(result.out_BND), result.log_sum_exp_BHN});
  const auto bf16 = [](const Tensor& t) { return t.to(at::kBFloat16); };
  return {bf16(out.q_BHNK), bf16(out.k_BHNK), bf16(out.v_BHNK)};
}

}  // namespace calotype::kernels::cpu
