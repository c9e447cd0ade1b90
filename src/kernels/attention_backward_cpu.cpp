#include "kernels/attention_backward_cpu.h"

#include <cmath>
#include <tuple>

#include "kernels/attention_operand.h"
#include "kernels/block_products.h"
#include "kernels/fused_rows.h"
#include "kernels/fused_rows_backward.h"
#include "kernels/tensor_rows.h"

namespace calotype::kernels::cpu {
namespace {

// Two blocks of f32 scores and what a step makes of them stay in L2 with its operands.
constexpr int64_t kKeyBlock = 64;
template <typename T>
constexpr int64_t kQueryBlock = std::is_same_v<T, float> ? 64 : 128;

// exp(score − this) is zero for every score: the padding query has no probabilities.
constexpr float kNoProbability = 1e30F;

/// [K, N] as a left factor from turned right factors: in bf16 those hold two rows as one of pairs.
template <typename T>
void split_pairs(const T* pairs, int64_t width, int64_t block, T* out) {
  for (int64_t row = 0; row < width; row += 2, pairs += 2 * block, out += 2 * block)
    for (int64_t i = 0; i < block; ++i) {
      out[i] = pairs[2 * i];
      out[block + i] = pairs[2 * i + 1];
    }
}

/// One thread's work: the gradients of one head after another.
template <typename Stored, typename T>
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
        padded_(even(tokens_)),
        q_(operand_size()),
        k_(operand_size()),
        v_(operand_size()),
        grad_(operand_size()),
        q_turned_(turned_size(padded_, width_, kQueryBlock<T>)),
        grad_turned_(q_turned_.size()),
        k_turned_(turned_size(padded_, width_, kKeyBlock)),
        q_right_(kPairs ? operand_size() : 0),
        grad_right_(q_right_.size()),
        k_pairs_(kPairs ? k_turned_.size() : 0),
        log_sum_exp_(padded_),
        delta_(padded_),
        scores_(kKeyBlock * kQueryBlock<T>),
        d_probabilities_(scores_.size()),
        probabilities_(scores_.size()),
        d_scores_(scores_.size()),
        d_scores_right_(kPairs ? scores_.size() : 0),
        d_k_(kKeyBlock * width_),
        d_v_(d_k_.size()),
        d_q_turned_(q_turned_.size()),
        d_q_(kQueryBlock<T> * width_) {}

  void operator()(int64_t head) {
    read(head);
    turn();
    for (int64_t key = 0; key < padded_; key += kKeyBlock) {
      for (int64_t query = 0; query < padded_; query += kQueryBlock<T>) step(key, query);
      const int64_t rows = std::min(kKeyBlock, tokens_ - key), first = head * tokens_ + key;
      write(d_k_, rows, out_.k_BHNK, first);
      write(d_v_, rows, out_.v_BHNK, first);
    }
    for (int64_t query = 0; query < tokens_; query += kQueryBlock<T>) {
      const int64_t rows = std::min(kQueryBlock<T>, tokens_ - query);
      transpose(reinterpret_cast<const uint32_t*>(d_q_turned_.data() + query * width_),
                {.rows = static_cast<size_t>(width_),
                 .columns = static_cast<size_t>(rows),
                 .ld_in = kQueryBlock<T>,
                 .ld_out = static_cast<size_t>(width_)},
                reinterpret_cast<uint32_t*>(d_q_.data()));
      write(d_q_, rows, out_.q_BHNK, head * tokens_ + query);
    }
  }

 private:
  static constexpr bool kPairs = !std::is_same_v<T, float>;

  int64_t operand_size() const { return padded_ * width_; }

  // Rows behind the last token stay zero.
  void read(int64_t head) {
    const int64_t b = head / count_, h = head % count_, begin = head * tokens_ * width_;
    copy_rows(heads_.q_BHNK.const_data_ptr<Stored>() + begin, tokens_, width_, width_, q_.data());
    copy_rows(heads_.k_BHNK.const_data_ptr<Stored>() + begin, tokens_, width_, width_, k_.data());
    copy_rows(heads_.v_BHNK.const_data_ptr<Stored>() + begin, tokens_, width_, width_, v_.data());
    const Stored* grad = grad_BND_.const_data_ptr<Stored>() + b * grad_BND_.stride(0) + h * width_;
    copy_rows(grad, tokens_, width_, grad_BND_.stride(1), grad_.data());
    const Stored* out = result_.out_BND.const_data_ptr<Stored>() + (b * tokens_ * count_ + h) * width_;
    for (int64_t i = 0; i < tokens_; ++i)
      delta_[i] =
          dot_row(bits(grad + i * grad_BND_.stride(1)), bits(out + i * count_ * width_), static_cast<size_t>(width_));
    std::copy_n(result_.log_sum_exp_BHN.const_data_ptr<float>() + head * tokens_, tokens_, log_sum_exp_.data());
    if (tokens_ == padded_) return;
    log_sum_exp_.back() = kNoProbability;
    delta_.back() = 0.0F;
  }

  void turn() {
    to_turned_right(q_.data(), padded_, width_, kQueryBlock<T>, q_turned_.data());
    to_turned_right(grad_.data(), padded_, width_, kQueryBlock<T>, grad_turned_.data());
    if constexpr (kPairs) {
      to_right(q_.data(), padded_, width_, q_right_.data());
      to_right(grad_.data(), padded_, width_, grad_right_.data());
      to_turned_right(k_.data(), padded_, width_, kKeyBlock, k_pairs_.data());
      for (int64_t key = 0; key < padded_; key += kKeyBlock)
        split_pairs(k_pairs_.data() + key * width_, width_, kKeyBlock, k_turned_.data() + key * width_);
    } else {
      to_turned_right(k_.data(), padded_, width_, kKeyBlock, k_turned_.data());
    }
  }

  // Rows are keys, columns queries: sᵀ = k·qᵀ, d_pᵀ = v·gradᵀ, d_v += pᵀ·grad, d_k += d_sᵀ·q, d_qᵀ += kᵀ·d_sᵀ. This
  // way d_sᵀ is the only matrix that products need in two orders.
  void step(int64_t key, int64_t query) {
    const int64_t keys = std::min(kKeyBlock, padded_ - key), queries = std::min(kQueryBlock<T>, padded_ - query);
    const int64_t k_at = key * width_, q_at = query * width_;
    multiply(keys, queries, width_, k_.data() + k_at, width_, q_turned_.data() + q_at, kQueryBlock<T>, scores_.data(),
             kQueryBlock<T>, false);
    multiply(keys, queries, width_, v_.data() + k_at, width_, grad_turned_.data() + q_at, kQueryBlock<T>,
             d_probabilities_.data(), kQueryBlock<T>, false);
    differentiate_softmax(key, query, keys, queries);
    const auto& [grad, q, d_scores] =
        kPairs ? std::tie(grad_right_, q_right_, d_scores_right_) : std::tie(grad_, q_, d_scores_);
    multiply(keys, width_, queries, probabilities_.data(), kQueryBlock<T>, grad.data() + q_at, width_, d_v_.data(),
             width_, query > 0);
    multiply(keys, width_, queries, d_scores_.data(), kQueryBlock<T>, q.data() + q_at, width_, d_k_.data(), width_,
             query > 0);
    multiply(width_, queries, keys, k_turned_.data() + k_at, kKeyBlock, d_scores.data(), kQueryBlock<T>,
             d_q_turned_.data() + q_at, kQueryBlock<T>, key > 0);
  }

  void differentiate_softmax(int64_t key, int64_t query, int64_t keys, int64_t queries) {
    for (int64_t i = 0; i < keys; ++i) {
      const int64_t at = i * kQueryBlock<T>;
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
      if constexpr (kPairs)
        if (i % 2)
          interleave_row(bits(d_scores_.data() + at - kQueryBlock<T>), bits(d_scores_.data() + at),
                         static_cast<size_t>(queries), bits(d_scores_right_.data() + at - kQueryBlock<T>));
    }
  }

  template <typename Numbers>
  void write(const Numbers& from, int64_t rows, const Tensor& to, int64_t first_row) const {
    scale_row_to(from.data(), 1.0F, static_cast<size_t>(rows * width_),
                 bits(to.mutable_data_ptr<Stored>() + first_row * width_));
  }

  /// A vector with signed sizes.
  template <typename Number>
  struct Numbers : std::vector<Number> {
    explicit Numbers(int64_t size) : std::vector<Number>(static_cast<size_t>(size)) {}
    Number& operator[](int64_t i) { return this->data()[i]; }
    int64_t size() const { return static_cast<int64_t>(std::vector<Number>::size()); }
  };
  const Heads& heads_;
  const AttentionResult& result_;
  const Tensor& grad_BND_;
  const Heads& out_;
  int64_t count_, tokens_, width_, padded_;
  Numbers<T> q_, k_, v_, grad_;                   // [N, K]
  Numbers<T> q_turned_, grad_turned_, k_turned_;  // [K, N] in blocks
  Numbers<T> q_right_, grad_right_, k_pairs_;     // bf16 only, where right factors differ from plain ones
  Numbers<float> log_sum_exp_, delta_;            // [N]
  Numbers<float> scores_, d_probabilities_;       // of one step
  Numbers<T> probabilities_, d_scores_, d_scores_right_;
  Numbers<float> d_k_, d_v_, d_q_turned_, d_q_;
};

template <typename Stored, typename T>
Heads by_heads(const Tensor& grad_BND, const Heads& heads, const AttentionResult& result) {
  const Tensor& q = heads.q_BHNK;
  const Heads out{at::empty_like(q), at::empty_like(q), at::empty_like(q)};
  at::parallel_for(0, q.size(0) * q.size(1), 1, [&](int64_t begin, int64_t end) {
    HeadGradient<Stored, T> gradient(heads, result, grad_BND, out);
    for (int64_t head = begin; head < end; ++head) gradient(head);
    end_products();
  });
  return out;
}

}  // namespace

Heads attention_backward(const Tensor& grad, const Heads& heads, const AttentionResult& result) {
  const Tensor grad_BND = grad.stride(-1) == 1 ? grad : grad.contiguous();
  if (heads.q_BHNK.scalar_type() == at::kFloat) return by_heads<float, float>(grad_BND, heads, result);
  return has_block_products<at::BFloat16>() ? by_heads<at::BFloat16, at::BFloat16>(grad_BND, heads, result)
                                            : by_heads<at::BFloat16, float>(grad_BND, heads, result);
}

}  // namespace calotype::kernels::cpu
