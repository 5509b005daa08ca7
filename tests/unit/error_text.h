#pragma once
// The whole text of the error that `body` throws: what tests hold an error against.
#include <string>

#include "core/error.h"

namespace slmc {

template <typename Body>
std::string error_text(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.text();
  }
  return "no error";
}

}  // namespace slmc
