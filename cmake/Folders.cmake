# calotype_folder(NAME [LIBRARIES …] [UNITED [ALONE …]]): src/NAME becomes the static library calotype_NAME. It may include
# itself and the folders declared before it; any other #include "folder/…" stops the build (cmake/check_includes.cmake).
# UNITED compiles its files in batches, all but those named ALONE, which use names of their neighbours for their helpers.
set(CALOTYPE_FOLDERS "" CACHE INTERNAL "")

function(calotype_folder name)
  cmake_parse_arguments(PARSE_ARGV 1 arg UNITED "" "LIBRARIES;ALONE")
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${name}/*.cpp)
  file(GLOB headers CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${name}/*.h)
  list(FILTER sources EXCLUDE REGEX "/main\\.cpp$")
  set(above ${CALOTYPE_FOLDERS})

  set(stamp ${CMAKE_BINARY_DIR}/includes/${name}.stamp)
  add_custom_command(
    OUTPUT ${stamp}
    COMMAND ${CMAKE_COMMAND} "-DFOLDER=${name}" "-DALLOWED=${above}" "-DSTAMP=${stamp}" "-DSOURCE_DIR=${CMAKE_SOURCE_DIR}"
            -P ${CMAKE_SOURCE_DIR}/cmake/check_includes.cmake
    DEPENDS ${sources} ${headers} ${CMAKE_SOURCE_DIR}/cmake/check_includes.cmake
    COMMENT "Checking the includes of src/${name}" VERBATIM)

  add_library(calotype_${name} STATIC ${sources} ${stamp})
  target_include_directories(calotype_${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
  if(name STREQUAL base)
    set_source_files_properties(${CMAKE_SOURCE_DIR}/src/base/data_folder.cpp PROPERTIES COMPILE_DEFINITIONS
                                "CALOTYPE_SOURCE_DIR=\"${CMAKE_SOURCE_DIR}\"")
  endif()
  list(TRANSFORM above PREPEND calotype_)
  target_link_libraries(calotype_${name} PUBLIC ${above} calotype::fmt calotype::json ${arg_LIBRARIES} Threads::Threads)
  if("calotype::torch" IN_LIST arg_LIBRARIES)
    calotype_precompile(calotype_${name})
  endif()
  if(arg_UNITED)
    list(TRANSFORM arg_ALONE PREPEND ${CMAKE_SOURCE_DIR}/src/${name}/)
    set_source_files_properties(${arg_ALONE} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
    calotype_unite(calotype_${name})
  endif()
  set(CALOTYPE_FOLDERS ${CALOTYPE_FOLDERS} ${name} CACHE INTERNAL "")
endfunction()

# Most of the time goes into reading the same headers and instantiating the same templates: a compiler that is given six
# files at once takes a third of the time. Not for numerical code, where what is inlined must not depend on neighbours.
function(calotype_unite target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 6)
endfunction()

# ATen takes 6 s to parse: one precompiled header serves every target that uses it.
function(calotype_precompile target)
  if(NOT TARGET calotype_precompiled)
    file(WRITE ${CMAKE_BINARY_DIR}/precompiled.cpp "")
    add_library(calotype_precompiled STATIC ${CMAKE_BINARY_DIR}/precompiled.cpp)
    target_link_libraries(calotype_precompiled PUBLIC calotype::torch calotype::fmt)
    target_precompile_headers(calotype_precompiled PRIVATE <ATen/ATen.h> <ATen/Parallel.h> <fmt/format.h> <nlohmann/json.hpp>
                              <filesystem> <functional> <map> <memory> <optional> <span> <string> <string_view> <vector>)
  endif()
  target_precompile_headers(${target} REUSE_FROM calotype_precompiled)
endfunction()
