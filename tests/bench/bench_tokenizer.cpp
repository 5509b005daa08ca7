// Question: how many bytes of text does one thread turn into ids per CPU-second, and are they the right ids?
// Alternative in the same run: the `tokenizers` package, by scripts/goldens/check_tokenizers.py, which writes
// the documents, runs this program and compares.
//
// usage: bench_tokenizer TOKENIZER(.json|.gguf) DOCUMENTS IDS [RUNS]
//   DOCUMENTS  u32 length, bytes; again and again (little-endian)
//   IDS        written: u32 count, i32 ids; one per document
// prints one line: documents, bytes, tokens, load seconds, least CPU-seconds of RUNS over all documents
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "core/bytes.h"
#include "core/file.h"
#include "text/tokenizer.h"

namespace {

using slmc::text::Tokenizer;

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

Tokenizer load(const std::filesystem::path& path) {
  if (path.extension() != ".gguf") return Tokenizer::from_file(path);
  return Tokenizer::from_gguf(slmc::io::GgufFile::open(path).metadata(), path.string());
}

std::vector<std::string_view> documents_of(const slmc::MappedFile& file) {
  slmc::ByteReader reader(file.bytes(), file.path());
  std::vector<std::string_view> documents;
  while (reader.left() > 0) {
    const std::uint32_t bytes = reader.u32("the length of a document");
    documents.push_back(reader.text(bytes, "a document"));
  }
  return documents;
}

void run(int argc, char** argv) {
  const double begin = cpu_seconds();
  const Tokenizer tokenizer = load(argv[1]);
  const double loaded = cpu_seconds() - begin;
  const slmc::MappedFile file = slmc::MappedFile::open(argv[2]);
  const std::vector<std::string_view> documents = documents_of(file);
  const int runs = argc > 4 ? std::atoi(argv[4]) : 1;
  double best = 1e30;
  std::vector<std::vector<std::int32_t>> ids(documents.size());
  for (int r = 0; r < runs; ++r) {
    const double start = cpu_seconds();
    for (std::size_t i = 0; i < documents.size(); ++i) ids[i] = tokenizer.encode(documents[i]);
    best = std::min(best, cpu_seconds() - start);
  }
  slmc::AtomicFile out(argv[3]);
  std::size_t bytes = 0, tokens = 0;
  for (std::size_t i = 0; i < documents.size(); ++i) {
    const auto count = static_cast<std::uint32_t>(ids[i].size());
    out.write(std::as_bytes(std::span(&count, 1)));
    out.write(std::as_bytes(std::span(ids[i])));
    bytes += documents[i].size();
    tokens += ids[i].size();
  }
  out.commit();
  std::printf("%zu %zu %zu %.4f %.4f\n", documents.size(), bytes, tokens, loaded, best);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return std::fprintf(stderr, "usage: %s TOKENIZER DOCUMENTS IDS [RUNS]\n", argv[0]), 2;
  try {
    run(argc, argv);
    return 0;
  } catch (const slmc::Error& error) {
    std::fprintf(stderr, "%s\n", error.text().c_str());
    return 1;
  }
}
