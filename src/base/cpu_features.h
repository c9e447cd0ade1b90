// The processor features that decide how numbers are computed by default.
#pragma once

namespace calotype::base {

/// True where bf16 products run natively (AVX512-BF16, AMX, Arm BF16); elsewhere f32 is at least as fast.
bool cpu_multiplies_bf16();

}  // namespace calotype::base
