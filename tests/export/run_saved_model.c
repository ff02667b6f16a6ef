/* Detects in one image by an exported model, with TensorFlow's C API alone: what any server or program has.

   run_saved_model SAVED_MODEL LIBRARY IMAGE PROPOSALS COUNT INPUT,INPUT,... OUTPUT,OUTPUT,...

   LIBRARY: of custom ops, or "". PROPOSALS: a file of COUNT x 4 float32; without inputs for them, "" and 0. INPUTs and
   OUTPUTs are the signature's tensors, such as serving_default_image_bytes:0; inputs in the order image_bytes,
   proposals, num_proposals, outputs in the order boxes, scores, classes, counts. Prints a line for each detection:
   class score ymin xmin ymax xmax. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"

static TF_Status* status;

static void check(const char* what) {
  if (TF_GetCode(status) == TF_OK) return;
  printf("%s: code %d: %s\n", what, (int)TF_GetCode(status), TF_Message(status));
  exit(3);
}

static char* read_file(const char* path, size_t* size) {
  FILE* file = fopen(path, "rb");
  if (!file) exit(4);
  fseek(file, 0, SEEK_END);
  *size = (size_t)ftell(file);
  rewind(file);
  char* content = malloc(*size + 1);
  if (fread(content, 1, *size, file) != *size) exit(4);
  fclose(file);
  return content;
}

/* The tensors of a comma-separated list of OP:INDEX; returns how many there are. */
static int find_tensors(TF_Graph* graph, char* names, TF_Output* found) {
  int count = 0;
  for (char* name = strtok(names, ","); name; name = strtok(NULL, ",")) {
    char* colon = strrchr(name, ':');
    *colon = 0;
    found[count].oper = TF_GraphOperationByName(graph, name);
    found[count++].index = atoi(colon + 1);
    if (!found[count - 1].oper) {
      printf("no operation %s\n", name);
      exit(5);
    }
  }
  return count;
}

int main(int argc, char** argv) {
  if (argc != 8) return 2;
  status = TF_NewStatus();
  if (*argv[2]) {
    TF_LoadLibrary(argv[2], status);
    check("TF_LoadLibrary");
  }
  const char* tags[] = {"serve"};
  TF_Graph* graph = TF_NewGraph();
  TF_SessionOptions* options = TF_NewSessionOptions();
  TF_Session* session = TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
  check("TF_LoadSessionFromSavedModel");

  size_t size;
  char* image = read_file(argv[3], &size);
  const int64_t one[] = {1};
  TF_Tensor* image_bytes = TF_AllocateTensor(TF_STRING, one, 1, sizeof(TF_TString));
  TF_TString* string = TF_TensorData(image_bytes);
  TF_StringInit(string);
  TF_StringCopy(string, image, size);
  TF_Tensor* feeds[3] = {image_bytes, NULL, NULL};
  if (*argv[4]) {
    const int64_t count = atoi(argv[5]), shape[] = {1, count, 4};
    feeds[1] = TF_AllocateTensor(TF_FLOAT, shape, 3, (size_t)count * 4 * sizeof(float));
    memcpy(TF_TensorData(feeds[1]), read_file(argv[4], &size), (size_t)count * 4 * sizeof(float));
    feeds[2] = TF_AllocateTensor(TF_INT32, one, 1, sizeof(int32_t));
    *(int32_t*)TF_TensorData(feeds[2]) = (int32_t)count;
  }

  TF_Output inputs[3], outputs[4];
  TF_Tensor* found[4];
  const int ninputs = find_tensors(graph, argv[6], inputs), noutputs = find_tensors(graph, argv[7], outputs);
  TF_SessionRun(session, NULL, inputs, feeds, ninputs, outputs, found, noutputs, NULL, 0, NULL, status);
  check("TF_SessionRun");
  const float *boxes = TF_TensorData(found[0]), *scores = TF_TensorData(found[1]);
  const int32_t *classes = TF_TensorData(found[2]), *counts = TF_TensorData(found[3]);
  for (int i = 0; i < counts[0]; ++i, boxes += 4) {
    printf("%d %.9g %.9g %.9g %.9g %.9g\n", (int)classes[i], scores[i], boxes[0], boxes[1], boxes[2], boxes[3]);
  }
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  return 0;
}
