#include "engine/devices.h"

#include <ATen/Context.h>
#include <ATen/Version.h>
#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "core/error.h"

namespace slmc::engine {
namespace fs = std::filesystem;
namespace {

fs::path torch_folder() {
  Dl_info info{};
  SLMC_CHECK(dladdr(reinterpret_cast<const void*>(&at::show_config), &info) != 0);
  return fs::path(info.dli_fname).parent_path();
}

void load_cuda() {
  const fs::path library = torch_folder() / "libtorch_cuda.so";
  if (!fs::exists(library)) {
    throw Error(ErrorKind::Resource, "the device cuda needs a LibTorch built for CUDA, but the one in " + torch_folder().string() + " is for the CPU",
                "scripts/setup --gpu, or --device cpu");
  }
  if (!dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL)) {
    const char* why = dlerror();
    throw Error(ErrorKind::Resource, "libtorch_cuda must load, but does not: " + std::string(why ? why : "no reason given"),
                "most often a CUDA library is missing from the torch package; --device cpu works without it");
  }
}

// Names of the GPUs in the order of their bus numbers, as the driver shows them.
std::vector<std::string> gpu_names() {
  std::vector<fs::path> folders;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator("/proc/driver/nvidia/gpus", none)) folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end());
  std::vector<std::string> out;
  for (const fs::path& folder : folders) {
    std::ifstream in(folder / "information");
    std::string name = "GPU";
    for (std::string line; std::getline(in, line);) {
      if (line.rfind("Model:", 0) == 0) name = line.substr(line.find_first_not_of(" \t", 6));
    }
    out.push_back(name);
  }
  return out;
}

}  // namespace

c10::Device open_device(const std::string& word) {
  if (word == "cpu") return c10::Device(c10::kCPU);
  const bool plain = word == "cuda", numbered = word.rfind("cuda:", 0) == 0 && word.size() > 5 && word.size() < 9 &&
                                              std::all_of(word.begin() + 5, word.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!plain && !numbered) throw Error(ErrorKind::Usage, "the device must be cpu, cuda or cuda:N, but is '" + word + "'");
  load_cuda();
  const int index = plain ? 0 : std::stoi(word.substr(5));
  const int there = static_cast<int>(at::globalContext().hasCUDA() ? at::detail::getCUDAHooks().deviceCount() : 0);
  if (index >= there) {
    throw Error(ErrorKind::Resource, "the device " + word + " must exist, but " + (there == 0 ? "no GPU is seen" : std::to_string(there) + " are seen"),
                "--device cpu");
  }
  return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
}

bool has_cuda() { return at::globalContext().hasCUDA() && at::detail::getCUDAHooks().deviceCount() > 0; }

std::string device_name(c10::Device device) {
  if (device.is_cpu()) return "cpu";
  const std::vector<std::string> names = gpu_names();
  const auto i = static_cast<std::size_t>(device.index());
  return i < names.size() ? names[i] : device.str();
}

std::vector<std::string> device_names() {
  std::vector<std::string> out = {"cpu"};
  for (std::string& name : gpu_names()) out.push_back(std::move(name));
  return out;
}

std::string running_torch() {
  const std::uint64_t v = aoti_torch_abi_version();
  return std::to_string(v >> 56) + "." + std::to_string(v >> 48 & 0xFF) + "." + std::to_string(v >> 40 & 0xFF);
}

}  // namespace slmc::engine
