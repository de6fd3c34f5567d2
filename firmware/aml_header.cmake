# cmake -DAML=dsdt.aml -DHEADER=dsdt_aml.hpp -P aml_header.cmake: an AML image as a C++ array.
file(READ ${AML} hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
string(REGEX REPLACE "((0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,))" "\\1\n" bytes "${bytes}")
file(WRITE ${HEADER} "// Generated from dsdt.asl.
#pragma once

namespace transom::firmware {
inline constexpr unsigned char DSDT_AML[] = {
${bytes}
};
} // namespace transom::firmware
")
