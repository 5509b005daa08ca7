#pragma once
// Where a command writes its model: refused when something is there, made whole or not at all.
#include <filesystem>
#include <functional>
#include <string>

namespace slmc::cli {

// "gguf" for a path that ends in .gguf, else "hf": a folder.
std::string container_of(const std::filesystem::path& output);
// Error(Usage) when the output exists (a folder with something in it counts) and `replace` is not set, or when it is a folder that holds
// anything but a model: only a model makes place for a model.
void require_free(const std::filesystem::path& output, bool replace);
// Calls write(PATH), which makes a model there whole or not at all (ir/write.h); afterwards it is at `output`.
void write_whole(const std::filesystem::path& output, bool replace, const std::function<void(const std::filesystem::path&)>& write);

}  // namespace slmc::cli
