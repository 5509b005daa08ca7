#pragma once
// Settings that mean something only beside others (Setting::only_beside): a criterion beside a width, a group size beside a method.
#include <string>
#include <vector>

#include "stage/settings.h"

namespace slmc::stage {

std::vector<std::string> names_in(const std::string& list);                             // "ffn, kv" as names
std::vector<std::string> settings_beside(const Setting& setting);                       // "ffn, kv" as names; empty when it stands alone
bool means_something(const Setting& setting, const Settings& settings);                 // whether one of them is given, with a value that counts

}  // namespace slmc::stage
