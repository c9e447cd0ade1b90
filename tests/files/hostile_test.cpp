// The meter behind peak_bytes(): new and delete of this program count.
#include "hostile.h"

#include <malloc.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace {

struct Meter {
  bool on = false;
  int64_t live = 0, peak = 0;
};
thread_local Meter meter;

}  // namespace

void* operator new(size_t size) {
  void* place = std::malloc(std::max<size_t>(size, 1));
  if (!place) throw std::bad_alloc();
  if (meter.on) meter.peak = std::max(meter.peak, meter.live += static_cast<int64_t>(malloc_usable_size(place)));
  return place;
}

void operator delete(void* place) noexcept {
  if (meter.on) meter.live -= static_cast<int64_t>(malloc_usable_size(place));
  std::free(place);
}

void operator delete(void* place, size_t) noexcept { operator delete(place); }

namespace calotype::files {

int64_t peak_bytes(const std::function<void()>& work) {
  meter = {.on = true};
  work();
  meter.on = false;
  return meter.peak;
}

TEST(PeakBytes, SeesWhatIsAllocatedAndFreed) {
  EXPECT_EQ(peak_bytes([] {}), 0);
  const int64_t peak = peak_bytes([] {
    for (int i = 0; i < 10; ++i) std::vector<char> block(1 << 20);
    std::vector<char> one(3 << 20), other(2 << 20);
  });
  EXPECT_GE(peak, 5 << 20);
  EXPECT_LT(peak, 6 << 20);
}

}  // namespace calotype::files
