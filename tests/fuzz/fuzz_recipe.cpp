// Any bytes give a recipe that its own YAML reproduces, or one Error of kind Recipe. Never a crash, a hang, another exception.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "recipe/recipe.h"
#include "tests/unit/recipe_infos.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace slmc;
  static const stage::Registry registry = test_registry();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  recipe::Recipe decoded;
  try {
    decoded = recipe::decode(text, "/folder/fuzz.yaml", registry);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Recipe || error.message().empty()) std::abort();
    return 0;
  }
  const std::string written = recipe::to_yaml(decoded, "/folder");
  if (recipe::to_yaml(recipe::decode(written, "/folder/again.yaml", registry), "/folder") != written) std::abort();
  return 0;
}
