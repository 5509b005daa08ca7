#include "stage/beside.h"

#include <algorithm>

namespace slmc::stage {

std::vector<std::string> names_in(const std::string& list) {
  std::vector<std::string> names;
  std::string name;
  for (const char c : list + ",") {
    if (c != ',' && c != ' ') name += c;
    if (c == ',' && !name.empty()) names.push_back(std::move(name)), name.clear();
  }
  return names;
}

std::vector<std::string> settings_beside(const Setting& setting) { return names_in(setting.only_beside); }

bool means_something(const Setting& setting, const Settings& settings) {
  const std::vector<std::string> names = settings_beside(setting);
  return names.empty() || std::any_of(names.begin(), names.end(), [&](const std::string& other) {
    if (!settings.has(other) || setting.only_values.empty()) return settings.has(other);
    return std::find(setting.only_values.begin(), setting.only_values.end(), settings.text(other)) != setting.only_values.end();
  });
}

}  // namespace slmc::stage
