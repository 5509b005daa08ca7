// The engine's tests run on the device that SLMC_TEST_DEVICE names, on the CPU without it.
#include <cstdlib>

#include <nlohmann/json.hpp>

#include "engine/devices.h"
#include "tests/unit/engine_testing.h"

namespace slmc::engine {
namespace {
at::Device device = at::kCPU;
}  // namespace

at::Device test_device() { return device; }

void Kept::emit(const Json& event) { lines.push_back(event.dump()); }

}  // namespace slmc::engine

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (const char* word = std::getenv("SLMC_TEST_DEVICE")) slmc::engine::device = slmc::engine::open_device(word);
  return RUN_ALL_TESTS();
}
