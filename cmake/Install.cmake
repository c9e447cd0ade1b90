# `make install PREFIX=…`: a folder that runs from anywhere: bin/calotype, its libraries in lib/calotype (which no other
# program searches, so that PREFIX may be /usr/local), and share/calotype with models, tokenizers and licences.

# DT_RPATH, unlike its successor DT_RUNPATH, also serves the libraries that the libraries need.
target_link_options(calotype PRIVATE -Wl,--disable-new-dtags)
set_target_properties(calotype PROPERTIES BUILD_RPATH "${LIBTORCH_ROOT}/lib" INSTALL_RPATH "$ORIGIN/../lib/calotype")

install(TARGETS calotype RUNTIME DESTINATION bin)
install(DIRECTORY models DESTINATION share/calotype)
install(FILES LICENSE NOTICE DESTINATION share/calotype)
install(CODE "set(program \"$<TARGET_FILE:calotype>\")
set(libtorch \"${LIBTORCH_ROOT}\")")
install(SCRIPT cmake/install_libraries.cmake)
