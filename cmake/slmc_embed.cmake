# Writes OUT, a .cpp that holds the text of every JSON file in FOLDER, when one of them is newer. Run as a script:
#   cmake -DFOLDER=... -DOUT=... -P slmc_embed.cmake
file(GLOB files "${FOLDER}/*.json")
list(SORT files)
set(text "// Made from configs/arch by cmake/slmc_embed.cmake.\n#include \"ir/template.h\"\n\nnamespace slmc::ir {\n\n")
string(APPEND text "const std::vector<std::pair<std::string, std::string>>& built_in_templates() {\n")
string(APPEND text "  static const std::vector<std::pair<std::string, std::string>> all = {\n")
foreach(file IN LISTS files)
  get_filename_component(name "${file}" NAME)
  file(READ "${file}" json)
  string(APPEND text "{\"${name}\", R\"slmc(${json})slmc\"},\n")
endforeach()
string(APPEND text "  };\n  return all;\n}\n\n}  // namespace slmc::ir\n")
file(WRITE "${OUT}" "${text}")
