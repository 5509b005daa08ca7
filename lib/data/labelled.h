#pragma once
// Labelled documents as pieces of equal length, for classification by few shots and for its tests.
//
//   class     a value of the label field; classes stand in the order of their bytes
//   piece     `seq` tokens of one document, cut from its front without overlap; what is left over at its end is dropped
//   position  the pieces of a class are numbered along its documents, in the order of the files: those before the border, the first
//             1 - held_out of them, are for tuning, those behind it for tests. So tests never see text that lies among the tuned.
#include <cstdint>
#include <string>
#include <vector>

#include "data/source.h"
#include "text/tokenizer.h"

namespace slmc::data {

struct Piece {
  std::vector<std::int32_t> ids;           // [seq]
  std::int64_t label = 0;                  // index into Labelled::classes
};

struct Labelled {
  std::vector<std::string> classes;
  std::vector<std::vector<std::vector<std::int32_t>>> pieces;      // [class][position] -> [seq] ids
  std::vector<std::int64_t> border;                                // [class] first position for tests
  std::string source;                                              // the first file, for messages
};

// held_out in (0, 1). Error(Data) when a document names no class, or there are fewer than two classes.
Labelled read_labelled(const DomainSpec& domain, std::int64_t seq, double held_out, const text::Tokenizer& tokenizer);

// `count` pieces of each class from before the border, drawn without repetition: a pure function of seed, class name and text. All of the
// first class come first. Error(Data) when a class has fewer.
std::vector<Piece> draw_shots(const Labelled& data, std::int64_t count, std::uint64_t seed);

// `count` pieces of each class from behind the border, evenly spread. Error(Data) when a class has fewer.
std::vector<Piece> test_pieces(const Labelled& data, std::int64_t count);

}  // namespace slmc::data
