// Runs a fuzz target on stored inputs without libFuzzer, so that every compiler replays every corpus as a
// test.
//   replay_gguf FILE|FOLDER...       prints one line; the exit code is 0 when all inputs went through, 2 when
//   there were none
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace fs = std::filesystem;

static std::vector<fs::path> inputs(int argc, char** argv) {
  std::vector<fs::path> files;
  for (int i = 1; i < argc; ++i) {
    if (!fs::is_directory(argv[i])) {
      files.emplace_back(argv[i]);
      continue;
    }
    for (const auto& entry : fs::directory_iterator(argv[i])) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

int main(int argc, char** argv) {
  const std::vector<fs::path> files = inputs(argc, argv);
  for (const fs::path& file : files) {
    std::ifstream in(file, std::ios::binary);
    const std::vector<char> text{std::istreambuf_iterator<char>(in), {}};
    // A block of exactly the input's size: the sanitizers see one byte too far.
    const std::unique_ptr<std::uint8_t[]> data(new std::uint8_t[text.size()]);
    std::copy(text.begin(), text.end(), data.get());
    std::fprintf(stderr, "%s\n", file.filename().c_str());  // the last one printed is the one that crashed
    LLVMFuzzerTestOneInput(data.get(), text.size());
  }
  std::printf("%zu inputs went through\n", files.size());
  return files.empty() ? 2 : 0;
}
