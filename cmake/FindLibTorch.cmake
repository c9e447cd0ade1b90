# Finds LibTorch's headers and libraries without TorchConfig.cmake, which demands a CUDA toolkit when the build has CUDA.
# Accepts a libtorch folder, a Python wheel's torch/ folder, or a site-packages folder that holds one, given by
# TORCH_DIR (variable or environment) or CMAKE_PREFIX_PATH; else the copy that tools/setup puts under third_party/.
# Makes the target calotype::torch. Links the CUDA libraries when they are there, never libtorch_python.
set(places ${TORCH_DIR} $ENV{TORCH_DIR} ${CMAKE_PREFIX_PATH} $ENV{CMAKE_PREFIX_PATH} ${CMAKE_SOURCE_DIR}/third_party/libtorch)
string(REPLACE ":" ";" places "${places}")
find_path(LIBTORCH_INCLUDE_DIR ATen/ATen.h PATHS ${places} PATH_SUFFIXES include torch/include ../../../include NO_DEFAULT_PATH)
if(NOT LIBTORCH_INCLUDE_DIR)
  message(FATAL_ERROR "LibTorch is missing (looked for ATen/ATen.h in: ${places}). Run `make build`, which fetches the "
                      "wheel torch==2.13.0, or set TORCH_DIR to a folder with LibTorch 2.11 or newer.")
endif()
get_filename_component(LIBTORCH_ROOT ${LIBTORCH_INCLUDE_DIR} DIRECTORY)
foreach(part torch_cpu c10)
  find_library(LIBTORCH_${part} ${part} PATHS ${LIBTORCH_ROOT}/lib NO_DEFAULT_PATH REQUIRED)
endforeach()
foreach(part torch_cuda c10_cuda)
  find_library(LIBTORCH_${part} ${part} PATHS ${LIBTORCH_ROOT}/lib NO_DEFAULT_PATH)
endforeach()

file(STRINGS ${LIBTORCH_INCLUDE_DIR}/torch/headeronly/version.h version_lines REGEX "define TORCH_VERSION_(MAJOR|MINOR) ")
string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*" "\\1.\\2" LIBTORCH_VERSION "${version_lines}")
if(LIBTORCH_VERSION VERSION_LESS 2.11)
  message(FATAL_ERROR "LibTorch in ${LIBTORCH_ROOT} is version ${LIBTORCH_VERSION}, expected 2.11 or newer")
endif()

add_library(calotype_torch INTERFACE)
add_library(calotype::torch ALIAS calotype_torch)
target_include_directories(calotype_torch SYSTEM INTERFACE ${LIBTORCH_INCLUDE_DIR})
target_link_libraries(calotype_torch INTERFACE ${LIBTORCH_torch_cpu} ${LIBTORCH_c10})

# at::parallel_for needs OpenMP's directives but must run on LibTorch's own runtime: a second one would fight for the cores.
file(GLOB LIBTORCH_OPENMP ${LIBTORCH_ROOT}/lib/libgomp*.so* ${LIBTORCH_ROOT}/../torch.libs/libgomp*.so*)
if(NOT LIBTORCH_OPENMP)
  set(LIBTORCH_OPENMP gomp)  # builds of LibTorch that use the system's
endif()
target_compile_options(calotype_torch INTERFACE -fopenmp)
target_link_libraries(calotype_torch INTERFACE ${LIBTORCH_OPENMP})

if(LIBTORCH_torch_cuda)
  # Nothing refers to a symbol of the CUDA library; loading it is what registers the device.
  target_link_options(calotype_torch INTERFACE -Wl,--push-state,--no-as-needed ${LIBTORCH_torch_cuda} ${LIBTORCH_c10_cuda} -Wl,--pop-state)
  file(GLOB nvidia_folders ${LIBTORCH_ROOT}/../nvidia/*/lib)
  foreach(folder ${nvidia_folders})
    target_link_options(calotype_torch INTERFACE -Wl,-rpath-link,${folder})
  endforeach()
endif()
set(LIBTORCH_CUDA "${LIBTORCH_torch_cuda}")
message(STATUS "LibTorch ${LIBTORCH_VERSION} in ${LIBTORCH_ROOT}")
