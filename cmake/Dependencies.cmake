# One target per library that we use; a missing one is named with its Debian package.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
include(FindLibTorch)

# calotype_library(NAME PACKAGE pkg-config-module): makes calotype::NAME.
function(calotype_library name package module)
  pkg_check_modules(${name} IMPORTED_TARGET GLOBAL ${module})
  if(NOT ${name}_FOUND)
    message(FATAL_ERROR "${module} is missing: install the Debian package ${package}")
  endif()
  add_library(calotype::${name} ALIAS PkgConfig::${name})
endfunction()

calotype_library(vips libvips-dev vips)
calotype_library(zlib zlib1g-dev zlib)
calotype_library(archive libarchive-dev libarchive)
calotype_library(utf8proc libutf8proc-dev libutf8proc)
calotype_library(highway libhwy-dev libhwy)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
add_library(calotype::cli11 ALIAS CLI11::CLI11)
add_library(calotype::json ALIAS nlohmann_json::nlohmann_json)

# fmt comes header-only with LibTorch; Debian's libfmt must not be mixed in, because LibTorch's include path shadows it.
add_library(calotype_fmt INTERFACE)
add_library(calotype::fmt ALIAS calotype_fmt)
target_compile_definitions(calotype_fmt INTERFACE FMT_HEADER_ONLY=1)
target_include_directories(calotype_fmt SYSTEM INTERFACE ${LIBTORCH_INCLUDE_DIR})
