#include <array>
#include <string_view>
#include <utility>

#include "core/hash.h"
#include "recipe/keys.h"

namespace slmc::recipe {
namespace {

constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kHashes = {{
#include "source_hash.inc"
}};

}  // namespace

std::string source_hash(const std::string& folder) {
  std::string text;
  for (const auto& [name, hash] : kHashes) {
    if (name == "lib" || folder.empty() || name == folder) text += hash;
  }
  return sha256(text);
}

std::string slmc_version() { return SLMC_VERSION; }

}  // namespace slmc::recipe
