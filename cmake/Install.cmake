# `make install PREFIX=…`: a folder that runs from anywhere: bin/, lib/ (LibTorch and what it brings), share/calotype.
include(GNUInstallDirs)
set_target_properties(calotype PROPERTIES
  BUILD_RPATH "${LIBTORCH_ROOT}/lib"
  INSTALL_RPATH "$ORIGIN/../lib")
install(TARGETS calotype RUNTIME DESTINATION bin)
install(DIRECTORY models/ DESTINATION share/calotype/models)
install(FILES LICENSE NOTICE DESTINATION share/calotype)
install(SCRIPT cmake/install_libraries.cmake)
install(CODE "set(LIBTORCH_ROOT \"${LIBTORCH_ROOT}\")")
