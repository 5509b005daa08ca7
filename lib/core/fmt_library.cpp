// fmt 9, compiled once. Debian has only a shared libfmt, which the programs would need at run time, and the header-only
// mode costs every source file that formats anything three CPU seconds. CMakeLists.txt says when this file is used.
#include <fmt/format-inl.h>

namespace fmt {
inline namespace v9 {
namespace detail {

// The templates that fmt/format.h only declares, for the types that exist in slmc.
template auto dragonbox::to_decimal(float) noexcept -> dragonbox::decimal_fp<float>;
template auto dragonbox::to_decimal(double) noexcept -> dragonbox::decimal_fp<double>;
template auto thousands_sep_impl(locale_ref) -> thousands_sep_result<char>;
template auto decimal_point_impl(locale_ref) -> char;
template void buffer<char>::append(const char*, const char*);
template void vformat_to(buffer<char>&, string_view, basic_format_args<FMT_BUFFER_CONTEXT(char)>, locale_ref);

}  // namespace detail
}  // namespace v9
}  // namespace fmt
