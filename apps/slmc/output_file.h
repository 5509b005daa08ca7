#pragma once
// Where a command writes its model: refused when something is there, made whole or not at all.
#include <filesystem>
#include <functional>
#include <string>

#include "core/error.h"

namespace slmc::cli {

// "gguf" for a path that ends in .gguf, else "hf": a folder.
std::string container_of(const std::filesystem::path& output);
// Error(Usage) when the output exists (a folder with something in it counts) and `replace` is not set, when it is a folder that holds
// anything but a model (only a model makes place for a model), or when it is a device, pipe or socket.
void require_free(const std::filesystem::path& output, bool replace);
// The same for a command that writes a file of its own, not a model.
void require_free_file(const std::filesystem::path& output, bool replace);
// Error(kind) unless `input` is a regular file, in words that say what it is.
void require_file(const std::filesystem::path& input, ErrorKind kind);
// Calls write(PATH), which makes a model there whole or not at all (ir/write.h); afterwards it is at `output`.
void write_whole(const std::filesystem::path& output, bool replace, const std::function<void(const std::filesystem::path&)>& write);

}  // namespace slmc::cli
