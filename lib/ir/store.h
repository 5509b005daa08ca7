#pragma once
// From logical tensors to stored ones, shared by the writers; the reverse of assemble.cpp. Private to lib/ir.
#include <functional>
#include <optional>
#include <string>

#include "ir/layout.h"
#include "ir/model.h"
#include "ir/resolve.h"

namespace slmc::ir {

// How the container holds the model, with its own config as the base when it came from there. Error(Recipe) listing every reason.
Fit require_fit(const Model& model, const std::string& container);

// Type of a logical tensor ("F32", "q4_0") in the file to be written.
using TypeOf = std::function<std::string(const TensorSpec&)>;

// The logical values as the file will hold them: queries folded by `fit.fold_q`, then stored as `type`.
io::TensorData intended(const Model& model, const TensorSpec& spec, const Fit& fit, const std::string& type);
// One stored tensor made of its logical parts. All parts must have the same type: Error(Recipe) naming them otherwise.
io::TensorData stored_form(const Model& model, const StoredTensor& stored, const Fit& fit, const TypeOf& type_of);

// Nothing counts as written until it has been read back: opens `path`, compares sizes and decoder with the fit and every logical tensor with
// what was intended, value for value. Error(Resource) naming the first difference.
void require_read_back(const std::string& path, const Model& model, const Fit& fit, const TypeOf& type_of);

}  // namespace slmc::ir
