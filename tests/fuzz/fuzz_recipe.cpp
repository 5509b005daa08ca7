// Any bytes give a recipe that its own YAML reproduces, or one Error of kind Recipe. Never a crash, a hang,
// another exception.
#include "recipe/recipe.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/recipe_infos.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace slmc;
  static const stage::Registry registry = test_registry();
  recipe::Recipe decoded;
  try {
    decoded = recipe::decode(fuzz::as_text(data, size), "/folder/fuzz.yaml", registry);
  } catch (const Error& error) {
    fuzz::require_refusal(error, ErrorKind::Recipe);
    return 0;
  }
  const std::string written = recipe::to_yaml(decoded, "/folder");
  const recipe::Recipe again = recipe::decode(written, "/folder/again.yaml", registry);
  fuzz::require(recipe::to_yaml(again, "/folder") == written, "a recipe written and read again is the same");
  return 0;
}
