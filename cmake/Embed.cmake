# calotype_embed(TARGET FOLDER NAMES…): the files FOLDER/NAME become part of TARGET, as a generated embedded_files.cpp.
# Run as a script (-P) with LIST, FOLDER and OUTPUT it writes that file.
if(CMAKE_SCRIPT_MODE_FILE)
  string(REPLACE "," ";" names "${LIST}")
  set(arrays "")
  set(rows "")
  set(count 0)
  foreach(name IN LISTS names)
    file(READ ${FOLDER}/${name} bytes HEX)
    file(SHA256 ${FOLDER}/${name} hash)
    string(SUBSTRING ${hash} 0 20 tag)
    # 64 bytes a line: compilers are slow with lines of a megabyte.
    string(REGEX REPLACE "(................................................................................................................................)" "\\1\n" bytes "${bytes}")
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
    string(APPEND arrays "constexpr unsigned char kFile${count}[] = {\n${bytes}};\n")
    string(APPEND rows "    {\"${name}\", kFile${count}, sizeof(kFile${count}), \"${tag}\"},\n")
    math(EXPR count "${count} + 1")
  endforeach()
  file(WRITE ${OUTPUT} "// Made from src/web by cmake/Embed.cmake.\n#include \"web/embedded_file.h\"\n\nnamespace calotype::web {\n"
       "namespace {\n${arrays}const EmbeddedFile kFiles[] = {\n${rows}};\n}  // namespace\n\n"
       "std::span<const EmbeddedFile> embedded_files() { return kFiles; }\n\n}  // namespace calotype::web\n")
  return()
endif()

function(calotype_embed target folder)
  set(output ${CMAKE_BINARY_DIR}/${target}/embedded_files.cpp)
  set(paths ${ARGN})
  list(TRANSFORM paths PREPEND ${folder}/)
  string(REPLACE ";" "," list "${ARGN}")
  add_custom_command(
    OUTPUT ${output}
    COMMAND ${CMAKE_COMMAND} "-DLIST=${list}" "-DFOLDER=${folder}" "-DOUTPUT=${output}" -P ${CMAKE_SOURCE_DIR}/cmake/Embed.cmake
    DEPENDS ${paths} ${CMAKE_SOURCE_DIR}/cmake/Embed.cmake
    COMMENT "Embedding the page" VERBATIM)
  target_sources(${target} PRIVATE ${output})
endfunction()
