#include "ir/keys.h"

namespace slmc::ir {

std::string form_name(const std::string& container) { return container == "hf" ? "Hugging Face" : "GGUF"; }

std::string prefix_of(const Json& config, const std::string& container) {
  if (container == "hf") return {};
  const auto it = config.find("general.architecture");
  return it != config.end() && it->is_string() ? it->get<std::string>() + "." : std::string{};
}

Json renamed_architecture(const Json& config, const std::string& architecture) {
  const std::string old = prefix_of(config, "gguf");
  Json out = Json::object();
  for (const auto& [key, value] : config.items()) {
    const bool own = !old.empty() && key.starts_with(old);
    out[own ? architecture + "." + key.substr(old.size()) : key] = value;
  }
  out["general.architecture"] = architecture;
  return out;
}

const Json* find_key(const Json& config, const std::string& container, const std::string& prefix,
                     std::string_view key) {
  if (container != "hf") {
    const auto it = config.find(prefix + std::string(key));
    return it == config.end() ? nullptr : &*it;
  }
  const Json* at = &config;
  while (true) {
    const std::size_t dot = key.find('.');
    if (!at->is_object()) return nullptr;
    const auto it = at->find(std::string(key.substr(0, dot)));
    if (it == at->end()) return nullptr;
    at = &*it;
    if (dot == std::string_view::npos) return at;
    key.remove_prefix(dot + 1);
  }
}

std::function<const Json*(std::string_view)> lookup(const std::map<std::string, Json>& names) {
  return [&names](std::string_view name) -> const Json* {
    const auto it = names.find(std::string(name));
    return it == names.end() ? nullptr : &it->second;
  };
}

}  // namespace slmc::ir
